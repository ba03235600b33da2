# What kubectl describe makes of objects, their Events with them.

kubectl create serviceaccount robot; kubectl create secret generic s --from-literal=password=hunter2; kubectl create configmap c --from-literal=a=1 --from-literal=text=$'two\nlines'

kubectl describe serviceaccount robot

kubectl apply -f - <<END
apiVersion: v1
kind: Secret
metadata:
  name: robot-token
  annotations: {kubernetes.io/service-account.name: robot}
type: kubernetes.io/service-account-token
END

# until
kubectl get secret robot-token -o jsonpath='{.data.token}' | grep .

kubectl describe secret robot-token

kubectl describe serviceaccount robot

kubectl get secret robot-token -o yaml

kubectl describe secret s

kubectl describe configmap c

kubectl describe cm

kubectl describe namespace describe

kubectl create role reader --verb=get,list --resource=configmaps,secrets --resource-name=c

kubectl create rolebinding reading --role=reader --serviceaccount=describe:robot --user=alice --group=devs

kubectl describe role reader

kubectl describe rolebinding reading

kubectl describe clusterrole system:discovery

kubectl describe clusterrolebinding cluster-admin

kubectl describe crd managedserviceaccounts.authentication.open-cluster-management.io

kubectl apply -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: msa, labels: {a: b}}
spec: {rotation: {}, ttlSecondsAfterCreation: 1000000}
END

kubectl describe managedserviceaccount msa

kubectl create -f - <<END
apiVersion: v1
kind: Event
metadata: {name: seen}
involvedObject: {apiVersion: authentication.open-cluster-management.io/v1beta1, kind: ManagedServiceAccount, name: msa, namespace: describe}
type: Warning
reason: Seen
message: it was seen
count: 3
source: {component: test}
firstTimestamp: "2026-01-01T00:00:00Z"
lastTimestamp: "2026-01-01T00:00:00Z"
END

kubectl describe managedserviceaccount msa

kubectl events --for managedserviceaccount/msa

kubectl get events

kubectl get events -o wide

kubectl get events.events.k8s.io seen -o yaml

kubectl create -f - <<END
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: held}
spec: {holderIdentity: me, leaseDurationSeconds: 15, acquireTime: "2026-01-01T00:00:00.000000Z", renewTime: "2026-01-01T00:00:00.000000Z"}
END

kubectl describe lease held

kubectl get lease held

kubectl create -f - <<END
apiVersion: v1
kind: Node
metadata: {name: describe-node, labels: {a: b}}
END

kubectl describe node describe-node

kubectl get node describe-node -o wide

kubectl delete node describe-node

kubectl describe secret nobody

kubectl describe nonsense
