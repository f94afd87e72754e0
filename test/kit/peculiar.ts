// @peculiar/x509 as a second opinion on what we write and read. It wants metadata reflection, of which this is the part it uses;
// our programs do not load it: see docs/certificates.md for what it would cost.

const metadata = new WeakMap<object, Map<string, unknown>>();

Object.assign(Reflect, {
  getMetadata: (key: string, target: object) => metadata.get(target)?.get(key),
  getOwnMetadata: (key: string, target: object) => metadata.get(target)?.get(key),
  hasOwnMetadata: (key: string, target: object) => metadata.get(target)?.has(key) ?? false,
  defineMetadata: (key: string, value: unknown, target: object) => {
    const known = metadata.get(target) ?? new Map<string, unknown>();
    known.set(key, value);
    metadata.set(target, known);
  },
  metadata: () => () => {},
});

export const x509 = await import("@peculiar/x509");
