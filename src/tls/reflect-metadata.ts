/**
 * `@peculiar/x509` registers its algorithms through tsyringe, which refuses to load where `Reflect` has no metadata functions,
 * though nothing here is decorated. This gives it the three it calls, so that no polyfill package is needed for them. Has to be
 * imported before `@peculiar/x509`.
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

// One that is there already (another package's) stays: two stores would not see each other's entries.
if (!('getMetadata' in Reflect)) Object.assign(Reflect, { getMetadata, getOwnMetadata, defineMetadata });
