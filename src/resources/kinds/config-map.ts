// core/v1 ConfigMap and Secret: named texts that other resources refer to (CA certificates, keys, client secrets). Nothing is made of
// them by themselves.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

/** Kubernetes' bound on one object. */
const TEXT_CHARS_MAX = 1024 * 1024;
const schemas = collectable(() => {
  const key = z.string().regex(/^[-._a-zA-Z0-9]{1,253}$/, { error: "expected a key of letters, digits, -, _ and ." });
  const texts = z.record(key, z.string().max(TEXT_CHARS_MAX)).nullish();
  const base64 = z.string().max(TEXT_CHARS_MAX).refine((text) => /^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text), { error: "expected base64" });
  const bytes = z.record(key, base64).nullish();
  return {
    configMap: z.strictObject({ data: texts, binaryData: bytes, immutable: z.boolean().nullish() }),
    secret: z.strictObject({ type: z.string().max(253).nullish(), data: bytes, stringData: texts, immutable: z.boolean().nullish() }),
  };
});

export const configMapKind = defineKind({
  kind: "ConfigMap",
  group: "",
  versions: ["v1"],
  namespaced: true,
  content: "document",
  spec: () => schemas().configMap,
  check() {},
});

export const secretKind = defineKind({
  kind: "Secret",
  group: "",
  versions: ["v1"],
  namespaced: true,
  content: "document",
  spec: () => schemas().secret,
  check() {},
});

export type ConfigMapResource = ResourceOfKind<typeof configMapKind>;
export type SecretResource = ResourceOfKind<typeof secretKind>;

/** One text of a Secret; stringData wins over data, as in Kubernetes. Undefined when it has no such key. */
export function secretText({ spec }: SecretResource, key: string): string | undefined {
  const plain = spec.stringData;
  if (plain && Object.hasOwn(plain, key)) return plain[key];
  const encoded = spec.data && Object.hasOwn(spec.data, key) ? spec.data[key] : undefined;
  return encoded === undefined ? undefined : Buffer.from(encoded, "base64").toString("utf8");
}
