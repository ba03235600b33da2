"""What programs do with the package `kubernetes`, with a transcript that is the same on every server.

The server is that of $KUBECONFIG; what is written is compared by the suite `rig_clients`.
"""

import base64
import threading
import time

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

import locks
from transcript import refused, say, section, sees

NAMESPACE = "python"
GROUP = "authentication.open-cluster-management.io"
ACCOUNTS = (GROUP, "v1beta1", NAMESPACE, "managedserviceaccounts")


def meta(name, **more):
    return client.V1ObjectMeta(name=name, **more)


def user(token):
    """A client for the user of a token."""
    own = client.Configuration.get_default_copy()
    own.api_key, own.refresh_api_key_hook = {"BearerToken": f"Bearer {token}"}, None
    return client.ApiClient(own)


def core_kinds(core):
    section("typed objects of core kinds")
    say("namespace", core.create_namespace(client.V1Namespace(metadata=meta(NAMESPACE))))
    sees("the default account", lambda: core.read_namespaced_service_account("default", NAMESPACE))
    made = core.create_namespaced_config_map(
        NAMESPACE, client.V1ConfigMap(metadata=meta("one", labels={"a": "1"}), data={"x": "1"})
    )
    say("created", made)
    made.data["y"] = "2"
    say("replaced", core.replace_namespaced_config_map("one", NAMESPACE, made))
    refused("replaced again", lambda: core.replace_namespaced_config_map("one", NAMESPACE, made))
    binary = client.V1Secret(metadata=meta("s"), data={"b": base64.b64encode(bytes(range(8))).decode()})
    say("secret", core.create_namespaced_secret(NAMESPACE, binary))
    text = client.V1Secret(metadata=meta("t"), string_data={"p": "hunter2"}, type="example.com/t")
    say("secret of text", core.create_namespaced_secret(NAMESPACE, text))
    account = client.V1ServiceAccount(metadata=meta("robot"), automount_service_account_token=False)
    say("account", core.create_namespaced_service_account(NAMESPACE, account))
    say("one of a selector", core.list_namespaced_config_map(NAMESPACE, label_selector="a=1"))
    say("deleted", core.delete_namespaced_secret("t", NAMESPACE))


def rights(rbac):
    section("rights")
    rule = client.V1PolicyRule(api_groups=[""], resources=["configmaps"], verbs=["get", "list"])
    say("role", rbac.create_namespaced_role(NAMESPACE, client.V1Role(metadata=meta("reader"), rules=[rule])))
    binding = client.V1RoleBinding(
        metadata=meta("reading"),
        role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="reader"),
        subjects=[client.RbacV1Subject(kind="ServiceAccount", name="robot", namespace=NAMESPACE)],
    )
    say("binding", rbac.create_namespaced_role_binding(NAMESPACE, binding))
    binding.role_ref.name = "another"
    refused("other role", lambda: rbac.replace_namespaced_role_binding("reading", NAMESPACE, binding))
    say("cluster role", rbac.read_cluster_role("system:basic-user").rules)


def pages(core):
    section("pages")
    for n in range(7):
        labels = {"paged": "yes"}
        core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta(f"page-{n}", labels=labels)))
    token, revisions, names = None, set(), []
    while token != "":
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="paged=yes", limit=3, _continue=token)
        revisions.add(page.metadata.resource_version)
        names.append([item.metadata.name for item in page.items])
        if token is None:
            core.delete_namespaced_config_map("page-6", NAMESPACE)
        token = page.metadata._continue or ""
    say("pages", names)
    say("of one moment", len(revisions) == 1)
    refused("nonsense", lambda: core.list_namespaced_config_map(NAMESPACE, limit=3, _continue="nonsense"))
    say("deleted", core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="paged=yes").kind)
    say("left", len(core.list_namespaced_config_map(NAMESPACE, label_selector="paged=yes").items))


def watches(core):
    section("watches")
    kept = {"namespace": NAMESPACE, "label_selector": "watched=yes"}
    begin = core.list_namespaced_config_map(**kept).metadata.resource_version
    body = client.V1ConfigMap(metadata=meta("w", labels={"watched": "yes"}), data={"n": "0"})
    core.create_namespaced_config_map(NAMESPACE, body)
    for n in range(1, 4):
        core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"n": str(n)}})
    seen, middle = [], None
    for event in watch.Watch().stream(core.list_namespaced_config_map, resource_version=begin, timeout_seconds=30, **kept):
        seen.append((event["type"], event["object"].data))
        if len(seen) == 2:
            middle = event["object"].metadata.resource_version
        if len(seen) == 4:
            break
    say("from the beginning", seen)
    core.delete_namespaced_config_map("w", NAMESPACE)
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_config_map, resource_version=middle, timeout_seconds=30, **kept):
        seen.append((event["type"], event["object"].data))
        if event["type"] == "DELETED":
            break
    say("resumed", seen)
    bookmarks = watch.Watch().stream(
        core.list_namespaced_config_map, resource_version=middle, timeout_seconds=1, allow_watch_bookmarks=True, **kept
    )
    say("until its time is over", [event["type"] for event in bookmarks if event["type"] != "BOOKMARK"])
    refused(
        "from before all time",
        lambda: list(watch.Watch().stream(core.list_namespaced_config_map, resource_version="1", timeout_seconds=5, **kept)),
        words=False,
    )


def patches(core, api):
    section("patches")
    patch = core.patch_namespaced_config_map

    def typed(kind, name, body, **more):
        return patch(name, NAMESPACE, body, _content_type=f"application/{kind}", **more)

    say("strategic", typed("strategic-merge-patch+json", "one", {"data": {"z": "1"}}).data)
    say("merge", typed("merge-patch+json", "one", {"data": {"z": None}}).data)
    say("json", typed("json-patch+json", "one", [{"op": "add", "path": "/data/j", "value": "1"}]).data)
    test = [{"op": "test", "path": "/data/j", "value": "2"}]
    refused("json test", lambda: typed("json-patch+json", "one", test))

    def apply(manager, data, **more):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
        return typed("apply-patch+yaml", "applied", body, field_manager=manager, **more)

    say("applied", apply("a", {"x": "1", "y": "1"}))
    refused("conflict", lambda: apply("b", {"x": "2"}))
    say("forced", apply("b", {"x": "2"}, force=True))
    # Which of two managers comes first depends on the second in which they wrote.
    say("less", apply("a", {}).data)
    say("dry", apply("a", {"q": "1"}, dry_run="All").data)
    refused("no manager", lambda: typed("apply-patch+yaml", "applied", {"apiVersion": "v1", "kind": "ConfigMap"}))
    secrets = [{"name": "x"}, {"name": "y"}]
    api.patch_namespaced_service_account("robot", NAMESPACE, {"imagePullSecrets": secrets})
    less = {"imagePullSecrets": [{"name": "x", "$patch": "delete"}]}
    kind = "application/strategic-merge-patch+json"
    say("list by key", api.patch_namespaced_service_account("robot", NAMESPACE, less, _content_type=kind).image_pull_secrets)


def tokens(core, authentication, authorization):
    section("tokens")
    request = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(
            audiences=["https://kubernetes.default.svc", "other"],
            expiration_seconds=1800,
            bound_object_ref=client.V1BoundObjectReference(api_version="v1", kind="Secret", name="s"),
        )
    )
    answer = core.create_namespaced_service_account_token("robot", NAMESPACE, request)
    token = answer.status.token
    say("token", answer)

    def review(**spec):
        body = client.V1TokenReview(spec=client.V1TokenReviewSpec(**spec))
        return authentication.create_token_review(body).status

    say("review", review(token=token))
    say("review for another", review(token=token, audiences=["other", "third"]))
    say("review for a stranger", review(token=token, audiences=["third"]))
    say("review of nonsense", review(token="nonsense"))
    robot = user(token)
    me = client.AuthenticationV1Api(robot).create_self_subject_review(client.V1SelfSubjectReview())
    say("who", me.status)
    say("what it may read", len(client.CoreV1Api(robot).list_namespaced_config_map(NAMESPACE).items) > 0)
    refused("what it may not", lambda: client.CoreV1Api(robot).list_namespaced_secret(NAMESPACE))

    def may(verb, resource, **more):
        attributes = client.V1ResourceAttributes(namespace=NAMESPACE, verb=verb, resource=resource)
        user = f"system:serviceaccount:{NAMESPACE}:robot"
        spec = client.V1SubjectAccessReviewSpec(resource_attributes=attributes, user=user, **more)
        return authorization.create_subject_access_review(client.V1SubjectAccessReview(spec=spec)).status

    say("may list configmaps", may("list", "configmaps"))
    say("may delete configmaps", may("delete", "configmaps"))
    say("may all", may("delete", "configmaps", groups=["system:masters"]))
    rules = client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace=NAMESPACE))
    found = client.AuthorizationV1Api(robot).create_self_subject_rules_review(rules).status
    # They come in no order.
    say("its rules", sorted(found.resource_rules, key=str))
    say("its paths", sorted(found.non_resource_rules, key=str))
    core.delete_namespaced_secret("s", NAMESPACE)
    # kube-apiserver remembers for ten seconds that a token was good.
    sees("the token is refused", lambda: not review(token=token).authenticated)
    say("review when its Secret is gone", review(token=token))
    bad = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=1))
    refused("too short", lambda: core.create_namespaced_service_account_token("robot", NAMESPACE, bad))
    refused("nobody", lambda: core.create_namespaced_service_account_token("nobody", NAMESPACE, request))


def custom(objects):
    section("custom objects")
    body = {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "ManagedServiceAccount",
        "metadata": {"name": "m"},
        "spec": {"rotation": {}},
    }
    made = objects.create_namespaced_custom_object(*ACCOUNTS, body)
    say("created", made)
    made["spec"]["ttlSecondsAfterCreation"] = 9
    say("replaced", objects.replace_namespaced_custom_object(*ACCOUNTS, "m", made))
    say("patched", objects.patch_namespaced_custom_object(*ACCOUNTS, "m", {"spec": {"rotation": {"validity": "1h"}}}))
    status = {"status": {"expirationTimestamp": "2027-01-01T00:00:00Z"}}
    say("status", objects.patch_namespaced_custom_object_status(*ACCOUNTS, "m", status))
    say("listed", objects.list_namespaced_custom_object(*ACCOUNTS))
    old = objects.get_namespaced_custom_object(GROUP, "v1alpha1", NAMESPACE, "managedserviceaccounts", "m")
    say("v1alpha1", old)
    del body["spec"]["rotation"]
    body["spec"]["ttlSecondsAfterCreation"] = "soon"
    refused("not as the schema has it", lambda: objects.create_namespaced_custom_object(*ACCOUNTS, body))
    say("deleted", objects.delete_namespaced_custom_object(*ACCOUNTS, "m"))
    refused("gone", lambda: objects.get_namespaced_custom_object(*ACCOUNTS, "m"))


def dynamic(api):
    section("dynamic client")
    dyn = DynamicClient(api)
    kind = dyn.resources.get(api_version=f"{GROUP}/v1beta1", kind="ManagedServiceAccount")
    say("kind", [kind.name, kind.namespaced, sorted(kind.verbs), sorted(kind.subresources)])
    maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
    say("short", dyn.resources.get(api_version=f"{GROUP}/v1beta1", short_names=["msa"]).kind)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"a": "1"}}
    say("created", maps.create(body=body, namespace=NAMESPACE).to_dict())
    say("applied", maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="dyn").to_dict())
    try:
        maps.create(body=body, namespace=NAMESPACE)
        raise AssertionError("created twice")
    except ConflictError as error:
        say("twice", error.summary())
    account = {"apiVersion": kind.group_version, "kind": kind.kind, "metadata": {"name": "d"}, "spec": {"rotation": {}}}
    say("account", kind.create(body=account, namespace=NAMESPACE).to_dict())
    say("status", kind.status.get(name="d", namespace=NAMESPACE).to_dict()["spec"])
    for event in maps.watch(namespace=NAMESPACE, name="d", timeout=10):
        say("watched", [event["type"], event["object"].metadata.name])
        break
    kind.delete(name="d", namespace=NAMESPACE)
    try:
        kind.get(name="d", namespace=NAMESPACE)
        raise AssertionError("it is there still")
    except NotFoundError as error:
        say("gone", error.summary())


def informers(core):
    section("informers")
    seen, lock = [], threading.Condition()
    informer = SharedInformer(core.list_namespaced_config_map, namespace=NAMESPACE, label_selector="informed=yes")

    def note(what):
        def handler(item):
            with lock:
                seen.append((what, item.metadata.name, item.data))
                lock.notify_all()

        return handler

    def until(count):
        with lock:
            assert lock.wait_for(lambda: len(seen) >= count, timeout=30), seen

    for what in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(what, note(what))
    labels = {"informed": "yes"}
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta("i1", labels=labels)))
    informer.start()
    until(1)
    core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta("i2", labels=labels)))
    until(2)
    core.patch_namespaced_config_map("i2", NAMESPACE, {"data": {"a": "1"}})
    until(3)
    core.patch_namespaced_config_map("i1", NAMESPACE, {"metadata": {"labels": {"informed": "no"}}})
    until(4)
    say("seen", seen)
    say("cached", sorted(informer.cache.list_keys()))
    core.delete_namespaced_config_map("i2", NAMESPACE)
    until(5)
    say("cached", informer.cache.list_keys())
    threading.Thread(target=informer.stop, daemon=True).start()


def election(name, make):
    """Two candidates: the second leads when the first one's lock has run out."""
    stages = []

    def candidate(identity, started):
        lock = make(name, NAMESPACE, identity)
        return electionconfig.Config(
            lock, lease_duration=3, renew_deadline=2, retry_period=1, onstarted_leading=started, onstopped_leading=lambda: None
        )

    led = threading.Event()
    first = leaderelection.LeaderElection(candidate("first", lambda: None))
    assert first.try_acquire_or_renew(), "the first leads"
    second = leaderelection.LeaderElection(candidate("second", lambda: (stages.append("second"), led.set())))
    stages.append("first")
    assert not second.try_acquire_or_renew(), "the lock is held"
    assert first.try_acquire_or_renew(), "the first renews"
    threading.Thread(target=second.run, daemon=True).start()
    assert led.wait(30), "nobody takes over"
    assert not first.try_acquire_or_renew(), "the first has lost"
    say(name, stages)


def elections(coordination):
    section("leader election")
    threads = [
        threading.Thread(target=election, args=("by-configmap", ConfigMapLock)),
        threading.Thread(target=election, args=("by-lease", locks.LeaseLock)),
    ]
    for thread in threads:
        thread.start()
        thread.join()
    lease = coordination.read_namespaced_lease("by-lease", NAMESPACE)
    say("lease", [lease.spec.holder_identity, lease.spec.lease_duration_seconds, lease.spec.acquire_time is not None])


def errors(core, objects):
    section("errors")
    refused("not found", lambda: core.read_namespaced_secret("nobody", NAMESPACE))
    twice = client.V1ConfigMap(metadata=meta("one"))
    refused("already exists", lambda: core.create_namespaced_config_map(NAMESPACE, twice))
    refused("invalid name", lambda: core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta("A_"))))
    refused("no such kind", lambda: objects.list_namespaced_custom_object("example.com", "v1", NAMESPACE, "nothings"))
    refused("a bad selector", lambda: core.list_namespaced_config_map(NAMESPACE, field_selector="data.x=1"))
    refused("no namespace", lambda: core.create_namespaced_config_map("nowhere", twice))
    stale = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="0b3a4e1c-9c1b-4a59-9a2c-0123456789ab"))
    refused("another", lambda: core.delete_namespaced_config_map("one", NAMESPACE, body=stale))
    refused("forbidden", lambda: client.CoreV1Api(user("alicetoken")).list_node())
    refused("unauthorized", lambda: client.CoreV1Api(user("wrong")).list_node())


def main():
    config.load_kube_config()
    core, objects = client.CoreV1Api(), client.CustomObjectsApi()
    core_kinds(core)
    rights(client.RbacAuthorizationV1Api())
    pages(core)
    watches(core)
    patches(core, core)
    tokens(core, client.AuthenticationV1Api(), client.AuthorizationV1Api())
    custom(objects)
    dynamic(client.ApiClient())
    informers(core)
    elections(client.CoordinationV1Api())
    errors(core, objects)
    section("the end")
    version = client.VersionApi().get_code()
    say("version", [version.major, version.minor])
    groups = client.ApisApi().get_api_versions().groups
    say("our group", [group for group in groups if group.name == GROUP])
    say("deleted", core.delete_namespace(NAMESPACE).status)


if __name__ == "__main__":
    main()
