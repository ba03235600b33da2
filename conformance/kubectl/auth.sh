# Tokens, and who may do what.

kubectl create serviceaccount robot; kubectl create secret generic holder; kubectl create -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec: {serviceAccountName: robot, automountServiceAccountToken: false, containers: [{name: c, image: i}]}
END

kubectl create token robot

kubectl create token robot --audience=https://example.com --audience=other --duration=20m

kubectl create token robot --duration=1m

kubectl create token robot --duration=10s

kubectl create token robot --duration=8760h

kubectl create token robot --bound-object-kind=Secret --bound-object-name=holder

kubectl create token robot --bound-object-kind=Pod --bound-object-name=pod

kubectl create token robot --bound-object-kind=Pod --bound-object-name=pod --bound-object-uid=0b3a4e1c-9c1b-4a59-9a2c-0123456789ab

kubectl create token robot --bound-object-kind=Node --bound-object-name=nobody

kubectl create token robot --bound-object-kind=Secret --bound-object-name=nobody

kubectl create token robot --bound-object-kind=ConfigMap --bound-object-name=x

kubectl create token nobody

kubectl create token robot -o yaml

kubectl create token default --duration=-5m

kubectl auth whoami

kubectl auth whoami -o yaml

kubectl --token=alicetoken auth whoami

kubectl --token=nonsense auth whoami

kubectl --token=$(kubectl create token robot) auth whoami

kubectl --token=$(kubectl create token robot --bound-object-kind=Pod --bound-object-name=pod) auth whoami -o json

kubectl --token=$(kubectl create token robot --audience=other) auth whoami

kubectl --as=alice --as-group=devs --as-group=ops --as-uid=7 --as-user-extra=scopes=a auth whoami -o yaml

kubectl --as=system:serviceaccount:auth:robot auth whoami

kubectl --token=alicetoken --as=bob auth whoami

kubectl auth can-i create configmaps

kubectl auth can-i '*' '*'

kubectl auth can-i --list

kubectl --token=alicetoken auth can-i get secrets

kubectl --token=alicetoken auth can-i get secrets -q

kubectl --token=alicetoken auth can-i --list

kubectl create role reader --verb=get,list --resource=configmaps --resource=secrets --resource-name=holder; kubectl create rolebinding reading --role=reader --serviceaccount=auth:robot

kubectl create role tokens --verb=create --resource=serviceaccounts/token; kubectl create rolebinding tokens --role=tokens --user=alice

kubectl auth can-i get secret/holder --as=system:serviceaccount:auth:robot

kubectl auth can-i get secret/other --as=system:serviceaccount:auth:robot

kubectl auth can-i list secrets --as=system:serviceaccount:auth:robot

kubectl auth can-i create serviceaccounts --subresource=token --as=alice

kubectl auth can-i --list --as=system:serviceaccount:auth:robot

kubectl auth can-i --list --as=alice --as-group=devs -n auth --no-headers

kubectl auth can-i get /healthz --as=alice --as-group=system:authenticated

kubectl auth can-i get /metrics --as=alice

kubectl auth can-i get nonsense

kubectl auth can-i get pods --subresource=log --as=alice -A

kubectl auth can-i frobnicate configmaps

kubectl auth can-i get namespaces

kubectl auth can-i get managedserviceaccounts.authentication.open-cluster-management.io --as=alice

kubectl --token=alicetoken create token robot

kubectl --token=alicetoken get secrets

kubectl --token=alicetoken get secret holder

kubectl --token=alicetoken get namespaces

kubectl --token=alicetoken create configmap x

kubectl --token=alicetoken delete sa robot

kubectl --token=alicetoken patch cm kube-root-ca.crt -p '{"data": {"a": "b"}}'

kubectl --token=alicetoken get managedserviceaccounts

kubectl --token=alicetoken get --raw /metrics

kubectl --token=alicetoken create rolebinding grab --clusterrole=cluster-admin --user=alice

kubectl --token=wrong get cm

cat >rbac.yaml <<END
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reconciled, namespace: auth}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reconciled, namespace: auth}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reconciled}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: alice}]
END
kubectl auth reconcile -f rbac.yaml

kubectl auth reconcile -f rbac.yaml

sed -i -e 's/verbs: .get./verbs: [list]/' -e 's/name: alice/name: bob/' rbac.yaml; kubectl auth reconcile -f rbac.yaml; kubectl get role,rolebinding reconciled -o yaml

kubectl auth reconcile -f rbac.yaml --remove-extra-subjects --remove-extra-permissions --dry-run=server -o yaml

kubectl auth reconcile -f rbac.yaml --remove-extra-subjects --remove-extra-permissions; kubectl get rolebinding reconciled -o wide

kubectl create role escalator --verb=create,update,patch,get --resource=roles.rbac.authorization.k8s.io; kubectl create rolebinding escalator --role=escalator --user=alice

kubectl --token=alicetoken create role grab --verb=get --resource=secrets

kubectl delete secret holder; kubectl delete pod pod --now

openssl genrsa -out key.pem 2048 2>/dev/null; openssl req -new -key key.pem -subj /O=team/CN=carol -out csr.pem; kubectl create -f - <<END
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: auth-carol}
spec: {request: $(base64 -w0 csr.pem), signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], expirationSeconds: 3600}
END

kubectl get csr auth-carol

kubectl describe csr auth-carol

kubectl certificate approve auth-carol

# until
kubectl get csr auth-carol -o jsonpath='{.status.certificate}' | grep .

kubectl get csr auth-carol

kubectl get csr auth-carol -o yaml

kubectl get csr auth-carol -o jsonpath='{.status.certificate}' | base64 -d >cert.pem; openssl x509 -in cert.pem -noout -subject; kubectl config set-credentials carol --client-certificate=cert.pem --client-key=key.pem --embed-certs >/dev/null; kubectl config set-context carol --cluster=rig --user=carol >/dev/null; kubectl --context=carol auth whoami -o jsonpath='{.status.userInfo.username} {.status.userInfo.groups}'

kubectl certificate approve auth-carol

kubectl certificate deny auth-carol

kubectl create -f - <<END
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: auth-denied}
spec: {request: $(base64 -w0 csr.pem), signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}
END
kubectl certificate deny auth-denied

kubectl get csr auth-denied

kubectl certificate approve nobody

kubectl create -f - <<END
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: auth-bad}
spec: {request: bm90aGluZw==, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}
END

kubectl delete csr auth-carol auth-denied
