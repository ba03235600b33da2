# Client-side and server-side apply, and what they make of each other.

cat >cm.yaml <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: c, labels: {a: "1"}}
data: {x: "1", y: "1"}
END
kubectl apply -f cm.yaml

kubectl apply -f cm.yaml

kubectl get cm c -o yaml --show-managed-fields

sed -i 's/y: "1"/z: "1"/' cm.yaml; kubectl apply -f cm.yaml; kubectl get cm c -o jsonpath='{.data}'

kubectl apply view-last-applied cm/c

kubectl apply -f cm.yaml --dry-run=server -o yaml

kubectl apply -f cm.yaml --dry-run=client

kubectl apply --server-side -f cm.yaml

kubectl get cm c -o yaml --show-managed-fields

kubectl create configmap plain --from-literal=a=1; kubectl create configmap plain --from-literal=a=2 --dry-run=client -o yaml | kubectl apply -f -

kubectl apply --server-side -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: s}
data: {x: "1", y: "1"}
END

kubectl apply --server-side --field-manager=other -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: s}
data: {x: "2", z: "1"}
END

kubectl apply --server-side --field-manager=other --force-conflicts -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: s}
data: {x: "2", z: "1"}
END

kubectl get cm s -o yaml --show-managed-fields

kubectl apply --server-side -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: s}
data: {x: "1", y: "1"}
END

kubectl apply --server-side --dry-run=server -f - -o yaml <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: s}
data: {y: "5"}
END

cat >msa.yaml <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: msa}
spec: {rotation: {enabled: true}, ttlSecondsAfterCreation: 1000000}
END
kubectl apply -f msa.yaml

kubectl apply -f msa.yaml

sed -i 's/enabled: true/validity: 48h/' msa.yaml; kubectl apply -f msa.yaml; kubectl get -f msa.yaml -o yaml

sed -i 's/validity: 48h/validity: 24h/' msa.yaml; kubectl apply --server-side -f msa.yaml

kubectl apply --server-side --field-manager=other -f - <<END
apiVersion: authentication.open-cluster-management.io/v1beta1
kind: ManagedServiceAccount
metadata: {name: msa}
spec: {rotation: {validity: 12h}}
END

kubectl get -f msa.yaml -o yaml --show-managed-fields

kubectl apply -f - <<END
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: in-list}}
- {apiVersion: v1, kind: Secret, metadata: {name: in-list}, stringData: {a: b}}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: in-list}, rules: [{apiGroups: [""], resources: [secrets], verbs: [get]}]}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: in-list}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: in-list}, subjects: [{kind: ServiceAccount, name: in-list, namespace: apply}]}
END

kubectl apply -f - <<END
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: in-list}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: another}
subjects: [{kind: ServiceAccount, name: in-list, namespace: apply}]
END

kubectl apply --prune -l pruned=yes --prune-allowlist=core/v1/ConfigMap -f - <<END
{apiVersion: v1, kind: ConfigMap, metadata: {name: p1, labels: {pruned: "yes"}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: p2, labels: {pruned: "yes"}}}
END

kubectl apply --prune -l pruned=yes --prune-allowlist=core/v1/ConfigMap -f - <<END
{apiVersion: v1, kind: ConfigMap, metadata: {name: p1, labels: {pruned: "yes"}}}
END

kubectl apply -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: [1, 2]
END

kubectl apply --server-side -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {x: 5}
END

kubectl apply --server-side -f - <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
nonsense: 1
END

# A definition of a kind, and an object of it as soon as it is served.
cat >crd.yaml <<END
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.apply.example.com}
spec:
  group: apply.example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd], categories: [things]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Colour, type: string, jsonPath: .spec.colour, priority: 1}
    - {name: Born, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        description: A widget.
        type: object
        properties:
          spec:
            type: object
            description: What it should be.
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How big it is.}
              colour: {type: string, enum: [red, blue], default: red}
              replicas: {type: integer}
              parts: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name], items: {type: object, required: [name], properties: {name: {type: string}, n: {type: integer}}}}
            x-kubernetes-validations:
            - {rule: "self.size < 100", message: too big}
          status: {type: object, properties: {replicas: {type: integer}, phase: {type: string}}}
END
kubectl apply -f crd.yaml

kubectl wait --for=condition=Established crd/widgets.apply.example.com --timeout=60s

# until
kubectl get widgets

kubectl apply -f - <<END
apiVersion: apply.example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 5, parts: [{name: a, n: 1}]}
END

kubectl get widgets

kubectl get wd w -o wide

kubectl get things

kubectl apply --server-side --field-manager=other -f - <<END
apiVersion: apply.example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 5, parts: [{name: b, n: 1}]}
END

kubectl get wd w -o yaml --show-managed-fields

kubectl apply -f - <<END
apiVersion: apply.example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 500, colour: green}
END

kubectl apply -f - <<END
apiVersion: apply.example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 500}
END

kubectl get widget w --subresource=scale; kubectl scale widget w --replicas=3 --current-replicas=1; kubectl patch widget w --subresource=scale --type=merge -p '{"spec": {}}'; kubectl patch widget w --subresource=scale --type=merge -p '{"spec": {"replicas": -1}}'

kubectl scale widget w --replicas=3; kubectl get wd w -o jsonpath='{.spec.replicas}'

kubectl explain widgets.spec

kubectl explain widgets --recursive

kubectl patch widget w --subresource=status --type=merge -p '{"status": {"phase": "Done"}}'

kubectl get wd w -o yaml

kubectl get widget w --subresource=scale -o yaml

kubectl wait --for=jsonpath='{.status.phase}'=Done widget/w --timeout=60s

kubectl apply -f crd.yaml

kubectl delete -f crd.yaml

# until
! kubectl get widgets

kubectl get widgets
