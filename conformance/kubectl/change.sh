# Changes: patch, label, annotate, edit, replace, diff, wait, delete.

kubectl create configmap c --from-literal=a=1; kubectl create serviceaccount sa

kubectl patch cm c -p '{"data": {"b": "1"}}'

kubectl patch cm c -p '{"data": {"b": "1"}}'

kubectl patch cm c --type=merge -p '{"data": {"a": null}}' -o yaml

kubectl patch cm c --type=json -p '[{"op": "add", "path": "/data/c", "value": "1"}, {"op": "test", "path": "/data/b", "value": "1"}]' -o jsonpath='{.data}'

kubectl patch cm c --type=json -p '[{"op": "test", "path": "/data/b", "value": "2"}]'

kubectl patch cm c --type=json -p '[{"op": "remove", "path": "/data/nothing"}]'

kubectl patch cm c -p '{"data": {"b": 5}}'

# Values of a wrong type. A merge patch is refused with the whole object, whose members have an order of their own.
for patch in '{"data": ["a"]}' '{"data": "a"}' '{"data": {"b": true}}' '{"data": {"b": {}}}' '{"data": {"b": 1.5}}' '{"metadata": "a"}' '{"metadata": {"finalizers": "a"}}' '{"immutable": "yes"}' '{"immutable": 1}' '{"binaryData": {"b": "!"}}' '{"binaryData": {"b": 5}}' '{"metadata": {"labels": {"a": 1}}}' '{"metadata": {"generation": "a"}}' '{"metadata": {"generation": 1.5}}' '{"metadata": {"deletionTimestamp": 5}}' '{"metadata": {"ownerReferences": [{"name": 5}]}}'; do for type in strategic merge; do kubectl patch cm c --type=$type -p "$patch"; done; done 2>&1 | sed 's/: "{.*}": /: OBJECT: /'

kubectl create secret generic typed; for patch in '{"type": 5}' '{"data": {"a": "!"}}' '{"stringData": {"a": 5}}'; do for type in strategic merge; do kubectl patch secret typed --type=$type -p "$patch"; done; done 2>&1 | sed 's/: "{.*}": /: OBJECT: /'

kubectl patch cm c -p '{"metadata": {"name": "other"}}'

kubectl patch cm c -p 'nonsense'

kubectl patch cm c --dry-run=server -p '{"data": {"b": "9"}}' -o yaml

kubectl patch sa sa -p '{"imagePullSecrets": [{"name": "x"}]}'; kubectl patch sa sa -p '{"imagePullSecrets": [{"name": "y"}]}' -o yaml

kubectl patch cm nobody -p '{}'

kubectl label cm c a=1 b=2

kubectl label cm c a=2

kubectl label cm c a=2 --overwrite

kubectl label cm c b- nothing-

kubectl label cm c 'bad key=1'

kubectl label cm c a='bad value!'

kubectl label cm --all all=yes

kubectl label cm c --list | sort

kubectl label cm c a=3 --resource-version=1 --overwrite

kubectl annotate cm c example.com/note='some words'

kubectl annotate cm c example.com/note-

# Which of two managers comes first depends on the second in which they wrote.
kubectl get cm c -o jsonpath='{range .metadata.managedFields[*]}{.manager} {.operation} {.fieldsV1}{"\n"}{end}' | sort

EDITOR="sed -i s/some/other/" kubectl edit cm c

kubectl patch cm c -p '{"data": {"text": "some words"}}' -o name; EDITOR="sed -i s/some/other/" kubectl edit cm c; kubectl get cm c -o jsonpath='{.data.text}'

EDITOR="sed -i 's/other words/5\\n  x: [/'" kubectl edit cm c 2>&1 | head -3

EDITOR="sed -i -e 's/kind: ConfigMap/kind: Secret/'" kubectl edit cm c 2>&1 | head -3

EDITOR=true kubectl edit cm c

KUBE_EDITOR="sed -i s/sa/sb/" kubectl edit sa sa -o yaml 2>&1 | head -3

kubectl get cm c -o yaml >c.yaml; sed -i 's/other words/replaced/' c.yaml; kubectl replace -f c.yaml

kubectl replace -f c.yaml

kubectl replace --force -f c.yaml

kubectl create configmap new --dry-run=client -o yaml | kubectl replace -f -

kubectl create configmap c --from-literal=a=9 --dry-run=client -o yaml >d.yaml; kubectl diff -f d.yaml

kubectl diff --server-side --force-conflicts -f d.yaml

kubectl create configmap fresh --from-literal=a=9 --dry-run=client -o yaml | kubectl diff -f -

kubectl get cm c -o yaml | kubectl diff -f -

kubectl scale cm c --replicas=2

kubectl set subject rolebinding nobody --user=a

kubectl create rolebinding rb --clusterrole=view --user=a; kubectl set subject rolebinding rb --user=b --group=g; kubectl get rolebinding rb -o wide

kubectl apply -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: msa}
spec: {rotation: {}}
END

kubectl patch managedserviceaccount msa --subresource=status --type=merge -p '{"status": {"conditions": [{"type": "TokenReported", "status": "True", "reason": "TokenReported", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}'

kubectl wait --for=condition=TokenReported managedserviceaccount/msa --timeout=60s

kubectl wait --for=condition=Other managedserviceaccount/msa --timeout=2s

kubectl wait --for=condition=TokenReported=False managedserviceaccount/msa --timeout=2s

kubectl wait --for=jsonpath='{.spec.rotation.enabled}'=true managedserviceaccount/msa --timeout=60s

kubectl wait --for=jsonpath='{.metadata.name}'=msa managedserviceaccount --all --timeout=60s

kubectl wait --for=create cm/later --timeout=60s & waiting=$!; kubectl create configmap later >/dev/null; wait $waiting

# It waits before the object goes.
kubectl wait --for=delete cm/later --timeout=60s -v=6 2>requests & waiting=$!
until grep -q watch=true requests; do sleep 0.1; done
kubectl delete cm later >/dev/null
wait $waiting

kubectl wait --for=delete cm/never --timeout=2s

kubectl wait --for=condition=x cm/never --timeout=2s

kubectl patch managedserviceaccount msa -p '{"spec": {}}'

kubectl patch managedserviceaccount msa --type=merge -p '{"spec": {"rotation": null}}'

kubectl patch managedserviceaccount msa --type=merge -p '{"spec": {"rotation": {"validity": "1h"}, "nonsense": 1}}' -o yaml

kubectl create configmap d1; kubectl create configmap d2; kubectl create configmap d3; kubectl label cm d1 d2 del=yes

kubectl delete cm d1 --dry-run=server

kubectl delete cm d1 --dry-run=client

kubectl delete cm -l del=yes

kubectl delete cm d3 -o name --wait=false

kubectl delete cm nobody

kubectl delete cm nobody --ignore-not-found

kubectl delete cm/c sa/sa

kubectl delete nonsense x

kubectl create -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: kept, finalizers: [example.com/stop]}
END
kubectl delete cm kept --timeout=2s

kubectl get cm kept -o yaml

kubectl patch cm kept --type=json -p '[{"op": "remove", "path": "/metadata/finalizers"}]'; kubectl get cm kept

kubectl create configmap owner; kubectl create -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: owned, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: $(kubectl get cm owner -o jsonpath={.metadata.uid}), blockOwnerDeletion: true}]}
END
kubectl delete cm owner --cascade=foreground

kubectl get cm owned

kubectl create configmap owner; kubectl create -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: owned, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: $(kubectl get cm owner -o jsonpath={.metadata.uid})}]}
END
kubectl delete cm owner --cascade=orphan; kubectl get cm owned -o jsonpath='{.metadata.ownerReferences}'

kubectl delete cm --all

# until
kubectl get cm kube-root-ca.crt

kubectl create namespace change-gone; kubectl delete namespace change-gone; kubectl get namespace change-gone

kubectl delete namespace default

kubectl delete namespace kube-system --dry-run=server

kubectl delete managedserviceaccounts --all

kubectl delete sa default

# until
kubectl get sa default

kubectl delete clusterrole no-such-role
