"""A Lease as the lock of an election: the package brings ConfigMaps only."""

import datetime
import json

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord


class LeaseLock:
    """The interface of the package's ConfigMapLock, over a Lease."""

    def __init__(self, name, namespace, identity):
        self.leases = client.CoordinationV1Api()
        self.name, self.namespace, self.identity = name, namespace, identity
        self.read = None

    def get(self, name, namespace):
        """The lock's record, or the server's refusal."""
        try:
            self.read = self.leases.read_namespaced_lease(name, namespace)
        except ApiException as error:
            return False, error
        spec = self.read.spec
        times = [str(time.replace(tzinfo=None)) for time in (spec.acquire_time, spec.renew_time)]
        return True, LeaderElectionRecord(spec.holder_identity, str(spec.lease_duration_seconds), *times)

    def create(self, name, namespace, election_record):
        """Makes the Lease; whether it was made."""
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=spec_of(election_record))
        try:
            self.leases.create_namespaced_lease(namespace, lease)
        except ApiException as error:
            assert json.loads(error.body)["reason"] == "AlreadyExists", error.body
            return False
        return True

    def update(self, name, namespace, updated_record):
        """Writes the record over what was read; whether nobody else was faster."""
        self.read.spec = spec_of(updated_record)
        try:
            self.leases.replace_namespaced_lease(name, namespace, self.read)
        except ApiException as error:
            assert error.status == 409, error.body
            return False
        return True


def spec_of(record):
    """A Lease's specification for an election's record, whose times are those of this machine."""

    def time(text):
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)

    return client.V1LeaseSpec(
        holder_identity=record.holder_identity,
        lease_duration_seconds=int(record.lease_duration),
        acquire_time=time(record.acquire_time),
        renew_time=time(record.renew_time),
    )
