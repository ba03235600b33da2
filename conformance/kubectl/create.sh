# Objects of every kind that kubectl create knows, as it shows and as it makes them.

kubectl create namespace create-made -o yaml

kubectl create secret generic plain --from-literal=user=admin --from-literal=password=hunter2 -o yaml

echo -n content >file; kubectl create secret generic of-file --from-file=file --from-file=named=file --type=example.com/kind -o yaml

openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=test 2>/dev/null; kubectl create secret tls tls --cert=cert.pem --key=key.pem; kubectl get secret tls -o jsonpath='{.type} {.data}' | sed 's/"[A-Za-z0-9+/=]\{100,\}"/LONG/g'

kubectl create secret docker-registry pull --docker-server=registry.example.com --docker-username=u --docker-password=p --docker-email=a@example.com -o yaml

kubectl create secret generic fixed --from-literal=a=b --dry-run=client -o json | sed 's/"data"/"immutable": true, "data"/' | kubectl create -f -

kubectl patch secret fixed -p '{"stringData": {"a": "c"}}'

kubectl create configmap literal --from-literal=a=1 -o yaml

printf 'a=1\nb=two words\n' >env; kubectl create configmap of-env --from-env-file=env -o yaml

head -c 20 /dev/zero | tr '\0' '\377' >binary; kubectl create configmap of-binary --from-file=binary -o yaml

kubectl create configmap hashed --append-hash --from-literal=a=1

kubectl create serviceaccount robot -o yaml

kubectl create role reader --verb=get --verb=list,watch --resource=configmaps,leases.coordination.k8s.io -o yaml

kubectl create role tokens --verb=create --resource=serviceaccounts/token --resource-name=robot -o yaml

kubectl create role unknown --verb=get --resource=nonsense

kubectl create rolebinding reading --role=reader --serviceaccount=create:robot -o yaml

kubectl create rolebinding viewing --clusterrole=view --user=alice --group=devs -o yaml

kubectl create clusterrole create-paths --verb=get --non-resource-url=/metrics,/logs/* -o yaml

kubectl create clusterrole create-sum --aggregation-rule=rbac.example.com/create=yes -o yaml

kubectl create clusterrole create-part --verb=get --resource=secrets --dry-run=client -o yaml >part.yaml; kubectl label --local -f part.yaml rbac.example.com/create=yes -o yaml | kubectl create -f -

# until
kubectl get clusterrole create-sum -o jsonpath='{.rules[*].resources}' | grep secrets

kubectl get clusterrole create-sum -o yaml

kubectl create clusterrolebinding create-all --clusterrole=create-paths --group=system:authenticated -o yaml

kubectl create configmap literal --from-literal=a=1

kubectl create namespace create-made

kubectl create configmap Bad_Name

kubectl create secret generic 'bad name' --dry-run=server

kubectl create configmap dry --dry-run=server -o name; kubectl get configmap dry

kubectl create configmap client --dry-run=client -o yaml

kubectl create configmap elsewhere -n no-such-namespace

kubectl create -f - <<END | sed 's/gen-[a-z0-9]\{5\}/gen-XXXXX/'
apiVersion: v1
kind: ConfigMap
metadata: {generateName: gen-, labels: {made: by-name}}
END

kubectl get cm -l made=by-name -o name | sed 's/gen-[a-z0-9]\{5\}$/gen-XXXXX/'

kubectl create -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: strict}
daat: {a: b}
END

kubectl create --validate=warn -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: warned}
daat: {a: b}
END

kubectl create --validate=ignore -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: ignored}
daat: {a: b}
END

kubectl create -f - <<END
apiVersion: v1
kind: Secret
metadata: {name: bad}
data: {a: "not base64!"}
END

kubectl create -f - <<END
apiVersion: v1
kind: ServiceAccount
metadata: {name: with-list}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: with-list}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: with-list}
END

kubectl create -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: bad}
spec: {rotation: {validity: 5}}
END

kubectl create -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: bad}
spec: {}
END

kubectl create -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: unknown-field}
spec: {rotation: {}, other: 1}
END

kubectl create -f - <<END
apiVersion: example.com/v1
kind: Nothing
metadata: {name: x}
END

kubectl create --raw /apis/authorization.k8s.io/v1/selfsubjectaccessreviews -f - <<END
{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {"verb": "get", "resource": "secrets"}}}
END

kubectl delete clusterrole create-paths create-sum create-part; kubectl delete clusterrolebinding create-all; kubectl delete namespace create-made
