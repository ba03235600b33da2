# Ways to look at objects.

kubectl create configmap one --from-literal=a=1 --from-literal=b=2

kubectl create configmap two --from-literal=a=2

kubectl label configmap one tier=front; kubectl label configmap two tier=back

kubectl create secret generic s --from-literal=password=hunter2

kubectl create serviceaccount robot

kubectl apply -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: msa}
spec: {rotation: {enabled: true, validity: 24h0m0s}}
END

kubectl get configmaps

kubectl get cm -o wide

kubectl get cm one -o yaml

kubectl get cm one -o yaml --show-managed-fields

kubectl get cm one -o json

kubectl get cm -o name

kubectl get cm -o yaml

kubectl get cm -o jsonpath='{range .items[*]}{.metadata.name}={.data.a}{"\n"}{end}'

kubectl get cm -o custom-columns=NAME:.metadata.name,A:.data.a,B:.data.b

kubectl get cm one -o go-template='{{.data.b}}{{"\n"}}'

kubectl get cm -l tier=front

kubectl get cm -l 'tier in (front,back),tier!=back' -L tier

kubectl get cm --show-labels -l tier

kubectl get cm --field-selector metadata.name=two

kubectl get cm --field-selector metadata.name!=two -o name

kubectl get cm --field-selector data.a=1

kubectl get cm --sort-by=.metadata.name --no-headers

kubectl get cm --chunk-size=1

kubectl get cm -A --field-selector metadata.name=one

kubectl get cm one two nobody

kubectl get cm nobody --ignore-not-found

kubectl get cm/one secret/s sa/robot

kubectl get cm,secrets,serviceaccounts

kubectl get secrets -o wide

kubectl get secret s -o yaml

kubectl get sa robot -o wide

kubectl get sa robot -o yaml

kubectl get managedserviceaccounts

kubectl get managedserviceaccount msa -o wide

kubectl get managedserviceaccount msa -o yaml

kubectl get managedserviceaccounts.v1alpha1.authentication.open-cluster-management.io msa -o yaml

kubectl get ns get

kubectl get ns get -o yaml

kubectl get namespaces --field-selector status.phase=Active,metadata.name=get -o name

kubectl get roles

kubectl get clusterrole admin edit view cluster-admin -o name

kubectl get clusterrole cluster-admin -o yaml

kubectl get clusterrole system:basic-user -o yaml

kubectl get clusterrolebinding cluster-admin -o wide

kubectl get clusterrolebinding system:discovery -o yaml

kubectl get crd managedserviceaccounts.authentication.open-cluster-management.io

kubectl get crd managedserviceaccounts.authentication.open-cluster-management.io -o yaml

kubectl get csr

kubectl get leases

kubectl get events

kubectl get pods

# Other sessions have Nodes of their own.
kubectl get nodes -l of=get

kubectl get pods,nodes -l of=get

kubectl get nonsense

kubectl get cm -n no-such-namespace

kubectl get --raw /api/v1/namespaces/get/configmaps/one

kubectl get --raw /healthz

kubectl get --raw /readyz

kubectl get --raw /no/such/path

# A watch shows what happens.
kubectl get cm -w --field-selector metadata.name=watched --output-watch-events >watch & watch=$!
kubectl create configmap watched
until grep -q ADDED watch; do sleep 0.1; done
kubectl label cm watched a=b
until grep -q MODIFIED watch; do sleep 0.1; done
kubectl delete cm watched
until grep -q DELETED watch; do sleep 0.1; done
kill $watch
cat watch

kubectl get cm one -w --request-timeout=3s

kubectl get all
