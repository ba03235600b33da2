# What a server says of itself.

kubectl api-resources

kubectl api-resources -o wide --sort-by=name

kubectl api-resources --namespaced=false -o name

kubectl api-resources --api-group=authentication.open-cluster-management.io -o wide

kubectl api-resources --verbs=list,get --categories=all

kubectl api-versions

kubectl version

kubectl version -o json

kubectl cluster-info

kubectl get --raw /version

kubectl get --raw /api

kubectl get --raw /apis/authentication.open-cluster-management.io

kubectl get --raw /apis/authentication.open-cluster-management.io/v1beta1

kubectl get --raw /apis/coordination.k8s.io/v1

kubectl get --raw /.well-known/openid-configuration | sed 's/"id_token_signing_alg_values_supported":\[[^]]*\]/ALG/'

kubectl get --raw /livez?verbose | head -2

kubectl explain configmaps

kubectl explain secret.data

kubectl explain sa --recursive

kubectl explain serviceaccounts.secrets

kubectl explain namespace.spec.finalizers

kubectl explain roles.rules

kubectl explain clusterrolebinding --recursive

kubectl explain lease.spec

kubectl explain csr.spec --recursive

kubectl explain events.involvedObject

kubectl explain events --api-version=events.k8s.io/v1

kubectl explain pods.spec.serviceAccountName

kubectl explain pods --recursive

kubectl explain nodes.spec

kubectl explain crd.spec.names

kubectl explain crd.spec.versions.schema.openAPIV3Schema --recursive

kubectl explain managedserviceaccounts

kubectl explain managedserviceaccounts.spec

kubectl explain managedserviceaccounts.spec.rotation.validity

kubectl explain managedserviceaccounts --recursive

kubectl explain managedserviceaccounts --api-version=authentication.open-cluster-management.io/v1alpha1 --recursive

kubectl explain configmaps --output=plaintext-openapiv2 --recursive

kubectl explain cm.nothing

kubectl explain nothing

kubectl explain tokenreviews
