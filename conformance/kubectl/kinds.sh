# Rules of single kinds, as kubectl meets them.

kubectl create secret generic fixed --from-literal=a=1; kubectl patch secret fixed -p '{"immutable": true}'

kubectl patch secret fixed -p '{"stringData": {"a": "2"}}'

kubectl patch secret fixed -p '{"immutable": false}'

kubectl patch secret fixed -p '{"type": "example.com/other"}'

kubectl label secret fixed a=b

kubectl create configmap fixed --from-literal=a=1; kubectl patch cm fixed -p '{"immutable": true}'; kubectl patch cm fixed -p '{"data": {"b": "1"}}'

kubectl get secrets --field-selector type=Opaque

kubectl get secrets --field-selector type=none

kubectl create secret generic docker --type=kubernetes.io/dockerconfigjson --from-literal=a=b

kubectl create secret generic docker --type=kubernetes.io/dockerconfigjson --from-literal=.dockerconfigjson=nonsense

kubectl create secret generic basic --type=kubernetes.io/basic-auth --from-literal=a=b

kubectl create secret generic ssh --type=kubernetes.io/ssh-auth --from-literal=a=b

kubectl create secret generic tls --type=kubernetes.io/tls --from-literal=tls.crt=a

kubectl create secret generic bad --from-literal='a b=c'

kubectl create secret generic token --type=kubernetes.io/service-account-token --from-literal=a=b

kubectl create -f - <<END
apiVersion: v1
kind: Secret
metadata:
  name: orphan-token
  annotations: {kubernetes.io/service-account.name: nobody}
type: kubernetes.io/service-account-token
END

# until
! kubectl get secret orphan-token

kubectl get secret orphan-token

kubectl create serviceaccount owner; kubectl create -f - <<END
apiVersion: v1
kind: Secret
metadata:
  name: owned-token
  annotations: {kubernetes.io/service-account.name: owner}
type: kubernetes.io/service-account-token
END

# until
kubectl get secret owned-token -o jsonpath='{.data.token}' | grep .

kubectl --token="$(kubectl get secret owned-token -o jsonpath='{.data.token}' | base64 -d)" auth whoami

kubectl patch sa owner -p '{"secrets": [{"name": "owned-token"}]}' -o yaml

kubectl delete sa owner

# until
! kubectl get secret owned-token

kubectl get secret owned-token

kubectl create -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: x}}
spec: {containers: [{name: c, image: i, env: [{name: A, value: b}], ports: [{containerPort: 80}]}], automountServiceAccountToken: false}
END

kubectl get pods -o wide

kubectl get pod p -o yaml

kubectl get pods --field-selector status.phase=Pending,spec.nodeName= -l app=x -o name

kubectl patch pod p -p '{"spec": {"containers": [{"name": "c", "image": "other"}]}}'

kubectl patch pod p -p '{"spec": {"serviceAccountName": "other"}}'

kubectl label pod p a=b; kubectl annotate pod p c=d

kubectl create -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec: {containers: []}
END

kubectl create -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec: {serviceAccountName: nobody, containers: [{name: c, image: i}]}
END

kubectl delete pod p --now

kubectl create -f - <<END
apiVersion: v1
kind: Node
metadata: {name: kinds-node, labels: {a: b}}
spec: {podCIDR: 10.0.0.0/24, taints: [{key: k, value: v, effect: NoSchedule}]}
END

kubectl get node kinds-node

kubectl get node kinds-node -o yaml

kubectl create serviceaccount robot; kubectl create token robot --bound-object-kind=Node --bound-object-name=kinds-node

kubectl taint node kinds-node k-

kubectl cordon kinds-node

kubectl delete node kinds-node

for spec in '{podCIDRs: [10.0.0.0/24, "fd00::/64"]}' '{podCIDR: 10.0.1.0/24, podCIDRs: [10.0.0.0/24]}' '{}'; do kubectl create -o jsonpath='{.spec}{"\n"}' -f - <<END; kubectl delete node kinds-ranges; done
apiVersion: v1
kind: Node
metadata: {name: kinds-ranges}
spec: $spec
END

kubectl create -f - <<END
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: bad}
spec: {leaseDurationSeconds: -1, leaseTransitions: -2}
END

kubectl create -f - <<END
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: bad}
rules: [{apiGroups: [""], resources: [secrets]}, {verbs: [get], nonResourceURLs: [/x]}]
END

kubectl create -f - <<END
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bad}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Nothing, name: x}
subjects: [{kind: ServiceAccount, name: x}, {kind: Group, name: ""}]
END

kubectl create clusterrole kinds-aggregate --verb=get --resource=secrets --dry-run=client -o yaml | kubectl apply -f -; kubectl patch clusterrole kinds-aggregate --type=json -p '[{"op": "replace", "path": "/rules/0/verbs", "value": []}]'

kubectl delete clusterrole kinds-aggregate

kubectl create -f - <<END
apiVersion: v1
kind: Event
metadata: {name: bad}
involvedObject: {kind: Pod, name: x, namespace: elsewhere}
END

kubectl create -f - <<END
apiVersion: events.k8s.io/v1
kind: Event
metadata: {name: new}
regarding: {kind: ConfigMap, name: fixed, namespace: kinds, apiVersion: v1}
eventTime: "2026-01-01T00:00:00.000000Z"
reportingController: example.com/test
reportingInstance: one
action: Looking
reason: Seen
type: Normal
note: it was seen
END

kubectl get events --field-selector involvedObject.kind=ConfigMap,reason=Seen

kubectl get events.v1.events.k8s.io

kubectl get event new -o yaml

kubectl get events --field-selector nonsense=x

kubectl create -f - <<END
apiVersion: v1
kind: Namespace
metadata: {name: kinds-full}
END
kubectl create configmap c -n kinds-full; kubectl create secret generic s -n kinds-full; kubectl create -n kinds-full -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: m, finalizers: [example.com/stop]}
spec: {rotation: {}}
END

kubectl delete namespace kinds-full --wait=false

# until
kubectl get namespace kinds-full -o jsonpath='{.status.conditions[*].type}' | grep NamespaceFinalizersRemaining

kubectl get namespace kinds-full -o jsonpath='{range .status.conditions[*]}{.type} {.status} {.reason} {.message}{"\n"}{end}'

kubectl create configmap late -n kinds-full

kubectl get cm,secrets,managedserviceaccounts -n kinds-full -o name

kubectl patch managedserviceaccount m -n kinds-full --type=json -p '[{"op": "remove", "path": "/metadata/finalizers"}]'

# until
! kubectl get namespace kinds-full

kubectl get namespace kinds-full

kubectl create -f - <<END
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: bad.kinds.example.com}
spec:
  group: kinds.example.com
  scope: Everywhere
  names: {plural: bads, kind: Bad}
  versions: [{name: v1, served: true, storage: false}]
END

kubectl create -f - <<END
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rules.kinds.example.com}
spec:
  group: kinds.example.com
  scope: Cluster
  names: {plural: rules, kind: Rule}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-validations: [{rule: "self.x >"}]}}}}
END

kubectl get cm fixed --server-print=false

kubectl get cm,secret -o jsonpath='{.items[*].metadata.name}'

kubectl --as=alice --as-uid= get cm

kubectl --as-group=devs get cm

kubectl --token=alicetoken --as=system:admin get cm

kubectl --as=system:serviceaccount:kinds:robot create token robot

kubectl replace --raw /api/v1/namespaces/kinds/configmaps/fixed -f /dev/null

kubectl delete --raw /api/v1/namespaces/kinds/configmaps/nobody
