// What every Kubernetes object has: apiVersion, kind, metadata; and the fields that kinds share.

import { z } from "zod";
import { parseCidr } from "../core/ip.ts";

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
export const DNS_SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const QUALIFIED_NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const LABEL_CHARS_MAX = 63;
/** A label's name, as far as a pattern can say it. */
export const LABEL_KEY = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const SUBDOMAIN_CHARS_MAX = 253;
/** Kubernetes' bound on all annotations of one object. */
const ANNOTATIONS_CHARS_MAX = 256 * 1024;

export const isDnsLabel = (text: string): boolean => DNS_LABEL.test(text);
export const isDnsSubdomain = (text: string): boolean => text.length <= SUBDOMAIN_CHARS_MAX && DNS_SUBDOMAIN.test(text);

/** Names below are RFC 1123: labels have at most 63 characters and no dots, subdomains are dotted labels of at most 253. */
export const dnsLabel = z.string().refine(isDnsLabel, { error: "expected an RFC 1123 label: at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit" }).meta({ maxLength: LABEL_CHARS_MAX, pattern: DNS_LABEL.source });
export const dnsSubdomain = z.string().refine(isDnsSubdomain, {
  error: "expected an RFC 1123 name: at most 253 of a-z, 0-9, - and ., each part beginning and ending with a letter or digit",
}).meta({ maxLength: SUBDOMAIN_CHARS_MAX, pattern: DNS_SUBDOMAIN.source });

function isQualifiedKey(key: string): boolean {
  const slash = key.indexOf("/");
  if (slash < 0) return QUALIFIED_NAME.test(key);
  return isDnsSubdomain(key.slice(0, slash)) && QUALIFIED_NAME.test(key.slice(slash + 1));
}

export const qualifiedKey = z.string().refine(isQualifiedKey, { error: "expected a label or annotation key: an optional DNS prefix and /, then at most 63 of letters, digits, -, _ and ." });
export const labelValue = z.string().refine((text) => text === "" || QUALIFIED_NAME.test(text), {
  error: "expected a label value: empty, or at most 63 of letters, digits, -, _ and ., beginning and ending with a letter or digit",
}).meta({ maxLength: LABEL_CHARS_MAX, pattern: `^$|${QUALIFIED_NAME.source}` });

export const labelMap = z.record(qualifiedKey, labelValue);
export type Labels = Readonly<Record<string, string>>;

const annotationMap = z.record(qualifiedKey, z.string())
  .refine((map) => Object.entries(map).reduce((sum, [key, value]) => sum + key.length + value.length, 0) <= ANNOTATIONS_CHARS_MAX, {
    error: `expected at most ${ANNOTATIONS_CHARS_MAX} characters of annotations`,
  });

export const port = z.int().min(1).max(65535);
export const ipBlock = z.string().refine((text) => parseCidr(text) !== null, { error: "expected an IP address or a CIDR such as 198.51.100.0/24" });

/** What kubectl prints is accepted; what has no meaning here is not looked at. */
const ignored = z.unknown().optional();
const serverFields = {
  uid: ignored, resourceVersion: ignored, generation: ignored, managedFields: ignored, ownerReferences: ignored, finalizers: ignored,
  selfLink: ignored, generateName: ignored, deletionTimestamp: ignored, deletionGracePeriodSeconds: ignored, clusterName: ignored,
};

export const objectMeta = z.strictObject({
  name: dnsSubdomain,
  namespace: dnsLabel.optional(),
  labels: labelMap.nullish(),
  annotations: annotationMap.nullish(),
  creationTimestamp: z.string().nullish(),
  ...serverFields,
});

/** A kind's whole document, with what is asked for below `spec`. `status` is what a cluster says about it. */
export function objectSchema<Spec extends z.ZodType>(spec: Spec) {
  return z.strictObject({ apiVersion: z.string(), kind: z.string(), metadata: objectMeta, spec, status: ignored });
}

/** A document whose fields stand beside its metadata. */
export function flatObjectSchema(fields: z.ZodType) {
  if (!(fields instanceof z.ZodObject)) throw new Error("a kind whose content is its document has an object as schema");
  return z.strictObject({ apiVersion: z.string(), kind: z.string(), metadata: objectMeta, ...fields.shape });
}

/** Namespace of an object that names none, as kubectl has it. */
export const NAMESPACE_DEFAULT = "default";
