// The L7 configuration as /config_dump shows it: records as they are in force, and none of the secrets in them. Pure.

import { formatCidr } from "../core/ip.ts";
import type { Cidr } from "../core/ip.ts";
import type { L7Snapshot } from "../mesh/l7/delta.ts";

export const NOT_SHOWN = "(not shown)";

/** Fields whose texts are secrets; a test holds the records of src/mesh/l7 to this list. */
export const SECRET_FIELDS: ReadonlySet<string> = new Set([
  "clientSecret", "cookieKeys", "keyPem",
  // Keys that verify are public, but what is written into a configuration may hold their other half, or a symmetric key.
  "jwks",
]);
/** Whatever a later record calls a secret, before somebody thinks of the list. */
const SECRET_NAME = /secret|password|passphrase|privatekey|credential/i;
/** Lists of name and value that are sent to services: values are often what lets us in there. */
const HEADERS_FOR_SERVICES: ReadonlySet<string> = new Set(["headers", "additionalHeaders"]);
const CREDENTIAL_HEADERS: ReadonlySet<string> = new Set(["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"]);
const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----/;

/** By kind, each a list; traffic policies by their service. */
export function dumpL7(l7: L7Snapshot): Record<string, unknown> {
  const list = (records: ReadonlyMap<string, unknown>): unknown[] => [...records.values()].map((record) => shown(record, ""));
  return {
    waypoints: list(l7.waypoints), routes: list(l7.routes), trafficPolicies: Object.fromEntries([...l7.trafficPolicies].map(([service, policies]) => [service, shown(policies, "")])),
    requestPolicies: list(l7.requestPolicies), requestAuthentications: list(l7.requestAuthentications), loginPolicies: list(l7.loginPolicies), telemetry: list(l7.telemetry), workloadLabels: list(l7.workloadLabels),
  };
}

/** @param field that holds the value; "" for none. */
function shown(value: unknown, field: string): unknown {
  if (typeof value === "string") return isSecret(field) || PRIVATE_KEY.test(value) ? NOT_SHOWN : value;
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return isPair(value) ? shownPair(value, field) : value.map((item) => shown(item, field));
  if (isCidr(value)) return formatCidr(value);
  if (ArrayBuffer.isView(value)) return isSecret(field) ? NOT_SHOWN : [...new Uint8Array(value.buffer, value.byteOffset, value.byteLength)];
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, shown(inner, isSecret(field) ? field : name)]));
}

function isSecret(field: string): boolean {
  return SECRET_FIELDS.has(field) || SECRET_NAME.test(field);
}

function isPair(value: readonly unknown[]): value is readonly [string, string] {
  return value.length === 2 && typeof value[0] === "string" && typeof value[1] === "string";
}

/** A name and a value; or two texts of a list, which then have no name that says otherwise. */
function shownPair([name, value]: readonly [string, string], field: string): unknown {
  if (isSecret(field)) return [NOT_SHOWN, NOT_SHOWN];
  return [shown(name, field), HEADERS_FOR_SERVICES.has(field) || CREDENTIAL_HEADERS.has(name.toLowerCase()) ? NOT_SHOWN : shown(value, field)];
}

function isCidr(value: object): value is Cidr {
  return "bytes" in value && value.bytes instanceof Uint8Array && "prefixLength" in value;
}
