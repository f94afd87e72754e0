// An L4 policy as a message of istio.security, both ways. Stricter than the reference: what it drops silently (a bad CIDR, a match of no
// kind, half a port) would widen the policy, so here the policy is refused.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Cidr } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { AuthorizationPolicy, PolicyAction, PolicyMatch, PolicyScope, ServiceAccountMatch, StringMatch } from "../../mesh/records.ts";
import {
  type Address as AddressMessage, type Authorization, AuthorizationSchema, type Match, type MatchSchema, type ServiceAccountMatch as AccountMessage, type StringMatch as StringMessage,
  type StringMatchSchema,
} from "../../wire/protobuf/istio/security/authorization_pb.ts";
import { AuthorizationExtensionSchema } from "../../wire/protobuf/weft/mesh/v1/extensions_pb.ts";
import { findExtension, originOf, packExtension, provenanceOf } from "./extension.ts";
import { Reading } from "./reading.ts";

const SCOPES: readonly [PolicyScope, ...PolicyScope[]] = ["global", "namespace", "workload"];
const ACTIONS: readonly [PolicyAction, ...PolicyAction[]] = ["allow", "deny"];

export function writePolicy(policy: AuthorizationPolicy): Authorization {
  return create(AuthorizationSchema, {
    name: policy.name, namespace: policy.namespace, scope: SCOPES.indexOf(policy.scope), action: ACTIONS.indexOf(policy.action), dryRun: policy.dryRun,
    rules: policy.rules.map(({ clauses }) => ({ clauses: clauses.map(({ matches }) => ({ matches: matches.map(writeMatch) })) })),
    extensions: [packExtension(AuthorizationExtensionSchema, { origin: originOf(policy.provenance), rulePaths: policy.rules.map(({ fieldPath }) => fieldPath) })],
  });
}

function writeMatch(match: PolicyMatch): MessageInitShape<typeof MatchSchema> {
  return {
    namespaces: match.namespaces.map(writeString), notNamespaces: match.notNamespaces.map(writeString),
    serviceAccounts: match.serviceAccounts.map((account) => ({ ...account })), notServiceAccounts: match.notServiceAccounts.map((account) => ({ ...account })),
    principals: match.principals.map(writeString), notPrincipals: match.notPrincipals.map(writeString),
    sourceIps: match.sourceIps.map(writeCidr), notSourceIps: match.notSourceIps.map(writeCidr),
    destinationIps: match.destinationIps.map(writeCidr), notDestinationIps: match.notDestinationIps.map(writeCidr),
    destinationPorts: [...match.destinationPorts], notDestinationPorts: [...match.notDestinationPorts],
  };
}

function writeString(match: StringMatch): MessageInitShape<typeof StringMatchSchema> {
  return { matchType: match.kind === "presence" ? { case: "presence", value: {} } : { case: match.kind, value: match.value } };
}

const writeCidr = ({ bytes, prefixLength }: Cidr): { address: Uint8Array; length: number } => ({ address: bytes, length: prefixLength });

/** @param version of the resource. The error says what is wrong with it, every problem. */
export function readPolicy(message: Authorization, version: string): Result<AuthorizationPolicy, string> {
  const reading = new Reading();
  const extension = findExtension(AuthorizationExtensionSchema, message.extensions, reading);
  if (message.name === "") reading.problem("name", "it is missing");
  const policy: AuthorizationPolicy = {
    name: message.name,
    namespace: message.namespace,
    scope: reading.enumeration("scope", message.scope, SCOPES),
    action: reading.enumeration("action", message.action, ACTIONS),
    dryRun: message.dryRun,
    rules: message.rules.map(({ clauses }, r) => ({
      clauses: clauses.map(({ matches }, c) => ({ matches: matches.map((match, m) => readMatch(`rules[${r}].clauses[${c}].matches[${m}]`, match, reading)) })),
      fieldPath: extension?.rulePaths[r] ?? `spec.rules[${r}]`,
    })),
    provenance: provenanceOf(extension?.origin, { kind: "AuthorizationPolicy", namespace: message.namespace, name: message.name, fieldPath: "" }, version),
  };
  return reading.problems === null ? ok(policy) : err(reading.problems);
}

function readMatch(field: string, match: Match, reading: Reading): PolicyMatch {
  // Each further condition narrows a match: left out, an ALLOW would cover more than was meant.
  if (match.extensions.length > 0 || (match.$unknown?.length ?? 0) > 0) reading.problem(field, "it has conditions that are not known here");
  const strings = (name: string, list: readonly StringMessage[]): StringMatch[] => list.map((one, i) => readString(`${field}.${name}[${i}]`, one, reading));
  const accounts = (name: string, list: readonly AccountMessage[]): ServiceAccountMatch[] => list.map(({ namespace, serviceAccount }, i) => {
    if (namespace === "" || serviceAccount === "") reading.problem(`${field}.${name}[${i}]`, "wanted a namespace and a service account");
    return { namespace, serviceAccount };
  });
  const cidrs = (name: string, list: readonly AddressMessage[]): Cidr[] => list.map(({ address, length }, i) => reading.cidr(`${field}.${name}[${i}]`, address, length));
  const ports = (name: string, list: readonly number[]): number[] => list.map((port, i) => reading.port(`${field}.${name}[${i}]`, port, 0));
  return {
    namespaces: strings("namespaces", match.namespaces), notNamespaces: strings("not_namespaces", match.notNamespaces),
    serviceAccounts: accounts("service_accounts", match.serviceAccounts), notServiceAccounts: accounts("not_service_accounts", match.notServiceAccounts),
    principals: strings("principals", match.principals), notPrincipals: strings("not_principals", match.notPrincipals),
    sourceIps: cidrs("source_ips", match.sourceIps), notSourceIps: cidrs("not_source_ips", match.notSourceIps),
    destinationIps: cidrs("destination_ips", match.destinationIps), notDestinationIps: cidrs("not_destination_ips", match.notDestinationIps),
    destinationPorts: ports("destination_ports", match.destinationPorts), notDestinationPorts: ports("not_destination_ports", match.notDestinationPorts),
  };
}

function readString(field: string, { matchType }: StringMessage, reading: Reading): StringMatch {
  switch (matchType.case) {
    case "exact":
    case "prefix":
    case "suffix":
      return { kind: matchType.case, value: matchType.value };
    case "presence":
      return { kind: "presence" };
    case undefined:
      reading.problem(field, "it says nothing that is known, wanted exact, prefix, suffix or presence");
      return { kind: "exact", value: "" };
  }
}
