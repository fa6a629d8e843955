/**
 * `@peculiar/x509` registers its algorithms through tsyringe, which refuses to load where `Reflect` has no metadata functions,
 * though nothing here is decorated. This gives it those it calls, so that no polyfill package is needed for them. Has to be
 * imported before `@peculiar/x509`.
 *
 * `acme-client` brings the polyfill all the same (`reflect-metadata`). It finds these, and keeps its own entries by them: for that there are the last
 * three.
 */
const stores = new WeakMap<object, Map<unknown, unknown>>();

function getOwnMetadata(key: unknown, target: object): unknown {
  return stores.get(target)?.get(key);
}

function getMetadata(key: unknown, target: object): unknown {
  for (let owner: object | null = target; owner !== null; owner = Reflect.getPrototypeOf(owner)) {
    if (stores.get(owner)?.has(key) === true) return getOwnMetadata(key, owner);
  }
  return undefined;
}

function defineMetadata(key: unknown, value: unknown, target: object): void {
  const store = stores.get(target) ?? new Map<unknown, unknown>();
  store.set(key, value);
  stores.set(target, store);
}

function hasOwnMetadata(key: unknown, target: object): boolean {
  return stores.get(target)?.has(key) === true;
}

function getOwnMetadataKeys(target: object): readonly unknown[] {
  return [...(stores.get(target)?.keys() ?? [])];
}

function deleteMetadata(key: unknown, target: object): boolean {
  return stores.get(target)?.delete(key) === true;
}

const own = { getMetadata, getOwnMetadata, defineMetadata, hasOwnMetadata, getOwnMetadataKeys, deleteMetadata };

// One that is there already (another package's) stays: two stores would not see each other's entries.
if (!('getMetadata' in Reflect)) Object.assign(Reflect, own);
