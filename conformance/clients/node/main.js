// What programs do with the package `@kubernetes/client-node`, with a transcript that is the same on every server.
//
// The server is that of $KUBECONFIG; what is written is compared by the suite `rig_clients`.

import * as k8s from '@kubernetes/client-node';
import { refused, say, section, until } from './transcript.js';

const namespace = 'node';
const group = 'authentication.open-cluster-management.io';
const accounts = { group, version: 'v1beta1', namespace, plural: 'managedserviceaccounts' };

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const rbac = config.makeApiClient(k8s.RbacAuthorizationV1Api);
const objects = config.makeApiClient(k8s.CustomObjectsApi);

/** The configuration of the user of a token. */
function user(token) {
  const own = new k8s.KubeConfig();
  own.loadFromOptions({
    clusters: config.clusters,
    users: [{ name: 'own', token }],
    contexts: [{ name: 'own', user: 'own', cluster: config.clusters[0].name }],
    currentContext: 'own',
  });
  return own;
}

/** The option that makes a patch one of a kind. */
const kind = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);

async function coreKinds() {
  section('typed objects of core kinds');
  say('namespace', await core.createNamespace({ body: { metadata: { name: namespace } } }));
  await until('the default account', () =>
    core.readNamespacedServiceAccount({ name: 'default', namespace }).catch(() => undefined),
  );
  const body = { metadata: { name: 'one', labels: { a: '1' } }, data: { x: '1' } };
  const made = await core.createNamespacedConfigMap({ namespace, body });
  say('created', made);
  made.data.y = '2';
  say('replaced', await core.replaceNamespacedConfigMap({ name: 'one', namespace, body: made }));
  await refused('replaced again', () => core.replaceNamespacedConfigMap({ name: 'one', namespace, body: made }));
  const secret = { metadata: { name: 's' }, stringData: { p: 'hunter2' } };
  say('secret', await core.createNamespacedSecret({ namespace, body: secret }));
  const robot = { metadata: { name: 'robot' } };
  say('account', await core.createNamespacedServiceAccount({ namespace, body: robot }));
  say('one of a selector', await core.listNamespacedConfigMap({ namespace, labelSelector: 'a=1' }));
  const rules = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }];
  say('role', await rbac.createNamespacedRole({ namespace, body: { metadata: { name: 'reader' }, rules } }));
  const binding = {
    metadata: { name: 'reading' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'reader' },
    subjects: [{ kind: 'ServiceAccount', name: 'robot', namespace }],
  };
  say('binding', await rbac.createNamespacedRoleBinding({ namespace, body: binding }));
}

async function pages() {
  section('pages');
  for (let n = 0; n < 5; n++) {
    const body = { metadata: { name: `page-${n}`, labels: { paged: 'yes' } } };
    await core.createNamespacedConfigMap({ namespace, body });
  }
  let _continue;
  do {
    const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'paged=yes', limit: 2, _continue });
    say('page', page.items.map((item) => item.metadata.name));
    _continue = page.metadata._continue;
  } while (_continue);
  await refused('nonsense', () => core.listNamespacedConfigMap({ namespace, limit: 2, _continue: 'nonsense' }));
  const gone = await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'paged=yes' });
  say('deleted', gone.status ?? gone.kind);
}

/** Watches until there were so many events, or the server has ended it. */
async function watched(query, count) {
  const seen = [];
  let ended = false;
  const note = (phase, object) => {
    if (phase !== 'BOOKMARK' && seen.length < count) seen.push([phase, object]);
  };
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const request = await new k8s.Watch(config).watch(path, query, note, () => (ended = true));
  await until(`${count} events`, () => seen.length === count || ended);
  request.abort();
  return seen;
}

async function watches() {
  section('watches');
  const labelSelector = 'watched=yes';
  const { metadata } = await core.listNamespacedConfigMap({ namespace });
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'w', labels: { watched: 'yes' } } } });
  for (const n of ['1', '2']) {
    const options = kind(k8s.PatchStrategy.MergePatch);
    await core.patchNamespacedConfigMap({ name: 'w', namespace, body: { data: { n } } }, options);
  }
  const query = { labelSelector, resourceVersion: metadata.resourceVersion };
  const first = await watched(query, 2);
  say('from the beginning', first);
  await core.deleteNamespacedConfigMap({ name: 'w', namespace });
  const resourceVersion = first[1][1].metadata.resourceVersion;
  say('resumed', await watched({ labelSelector, resourceVersion }, 2));
  const old = await watched({ labelSelector, resourceVersion: '1', timeoutSeconds: 5 }, 1);
  say('from before all time', old.map(([phase, status]) => [phase, status.code, status.reason]));
}

async function patches() {
  section('patches');
  const patch = async (strategy, name, body, more = {}) =>
    core.patchNamespacedConfigMap({ name, namespace, body, ...more }, kind(strategy));
  const { JsonPatch, MergePatch, ServerSideApply, StrategicMergePatch } = k8s.PatchStrategy;
  say('strategic', (await patch(StrategicMergePatch, 'one', { data: { z: '1' } })).data);
  say('merge', (await patch(MergePatch, 'one', { data: { z: null } })).data);
  say('json', (await patch(JsonPatch, 'one', [{ op: 'add', path: '/data/j', value: '1' }])).data);
  await refused('json test', () => patch(JsonPatch, 'one', [{ op: 'test', path: '/data/j', value: '2' }]));
  const apply = (fieldManager, data, more = {}) => {
    const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied' }, data };
    return patch(ServerSideApply, 'applied', body, { fieldManager, ...more });
  };
  say('applied', await apply('a', { x: '1', y: '1' }));
  await refused('conflict', () => apply('b', { x: '2' }));
  say('forced', await apply('b', { x: '2' }, { force: true }));
  // Which of two managers comes first depends on the second in which they wrote.
  say('less', (await apply('a', {})).data);
  say('dry', (await apply('a', { q: '1' }, { dryRun: 'All' })).data);
}

async function tokens() {
  section('tokens');
  const authentication = config.makeApiClient(k8s.AuthenticationV1Api);
  const authorization = config.makeApiClient(k8s.AuthorizationV1Api);
  const boundObjectRef = { apiVersion: 'v1', kind: 'Secret', name: 's' };
  const spec = { audiences: ['https://kubernetes.default.svc'], expirationSeconds: 1800, boundObjectRef };
  const answer = await core.createNamespacedServiceAccountToken({ name: 'robot', namespace, body: { spec } });
  say('token', answer);
  const { token } = answer.status;
  const review = async (spec) => (await authentication.createTokenReview({ body: { spec } })).status;
  say('review', await review({ token }));
  say('review for another', await review({ token, audiences: ['other'] }));
  const robot = user(token);
  const who = await robot.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
  say('who', who.status);
  const own = robot.makeApiClient(k8s.CoreV1Api);
  say('what it may', (await own.readNamespacedConfigMap({ name: 'one', namespace })).data);
  await refused('what it may not', () => own.listNamespacedSecret({ namespace }));
  const may = async (verb, resource) => {
    const spec = { user: `system:serviceaccount:${namespace}:robot`, resourceAttributes: { namespace, verb, resource } };
    return (await authorization.createSubjectAccessReview({ body: { spec } })).status;
  };
  say('may get configmaps', await may('get', 'configmaps'));
  say('may get secrets', await may('get', 'secrets'));
}

async function custom() {
  section('custom objects');
  const body = {
    apiVersion: `${group}/v1beta1`,
    kind: 'ManagedServiceAccount',
    metadata: { name: 'm', namespace },
    spec: { rotation: {} },
  };
  say('created', await objects.createNamespacedCustomObject({ ...accounts, body }));
  say('listed', await objects.listNamespacedCustomObject(accounts));
  const change = { spec: { ttlSecondsAfterCreation: 9 } };
  const merge = kind(k8s.PatchStrategy.MergePatch);
  say('patched', await objects.patchNamespacedCustomObject({ ...accounts, name: 'm', body: change }, merge));
  const generic = k8s.KubernetesObjectApi.makeApiClient(config);
  say('read by its kind', await generic.read(body));
  body.spec.rotation.validity = '24h';
  const { ServerSideApply } = k8s.PatchStrategy;
  say('applied by its kind', await generic.patch(body, undefined, undefined, 'generic', true, ServerSideApply));
  const wrong = { ...body, metadata: { name: 'n' }, spec: { rotation: 'never' } };
  await refused('not as the schema has it', () => objects.createNamespacedCustomObject({ ...accounts, body: wrong }));
  say('deleted', await objects.deleteNamespacedCustomObject({ ...accounts, name: 'm' }));
  await refused('gone', () => objects.getNamespacedCustomObject({ ...accounts, name: 'm' }));
}

async function informers() {
  section('informers');
  const labelSelector = 'informed=yes';
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, labelSelector);
  const seen = [];
  for (const what of ['add', 'update', 'delete']) {
    informer.on(what, (object) => seen.push([what, object.metadata.name, object.data]));
  }
  informer.on('error', (error) => seen.push(['error', String(error)]));
  const create = (name) =>
    core.createNamespacedConfigMap({ namespace, body: { metadata: { name, labels: { informed: 'yes' } } } });
  const reach = (count) => until(`${count} events`, () => seen.length >= count);
  await create('i1');
  await informer.start();
  await reach(1);
  await create('i2');
  await reach(2);
  const merge = kind(k8s.PatchStrategy.MergePatch);
  await core.patchNamespacedConfigMap({ name: 'i2', namespace, body: { data: { a: '1' } } }, merge);
  await reach(3);
  const unlabelled = { metadata: { labels: { informed: 'no' } } };
  await core.patchNamespacedConfigMap({ name: 'i1', namespace, body: unlabelled }, merge);
  await reach(4);
  say('seen', seen);
  say('cached', informer.list().map((object) => object.metadata.name));
  await informer.stop();
}

async function errors() {
  section('errors');
  const body = { metadata: { name: 'one' } };
  await refused('not found', () => core.readNamespacedSecret({ name: 'nobody', namespace }));
  await refused('already exists', () => core.createNamespacedConfigMap({ namespace, body }));
  await refused('invalid name', () => core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'A_' } } }));
  await refused('no namespace', () => core.createNamespacedConfigMap({ namespace: 'nowhere', body }));
  await refused('forbidden', () => user('alicetoken').makeApiClient(k8s.CoreV1Api).listNode());
  await refused('unauthorized', () => user('wrong').makeApiClient(k8s.CoreV1Api).listNode());
}

for (const part of [coreKinds, pages, watches, patches, tokens, custom, informers, errors]) {
  await part();
}
section('the end');
const version = await config.makeApiClient(k8s.VersionApi).getCode();
say('version', [version.major, version.minor]);
say('deleted', (await core.deleteNamespace({ name: namespace })).status);
process.exit(0);
