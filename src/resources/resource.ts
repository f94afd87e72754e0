// A resource: one parsed and checked Kubernetes object, and what the files of `kinds/` share.

import type { z } from "zod";
import type { Provenance } from "../core/fault.ts";
import type { Cidr } from "../core/ip.ts";
import type { TrustDomain } from "../core/spiffe.ts";
import type { DiagnosticCode, FieldPath, Severity } from "./diagnostic.ts";
import type { Labels } from "./object-meta.ts";

/** What the translation must know that no resource says. */
export interface TranslationOptions {
  /** Name of this node: its workloads come out as local. */
  readonly node: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly trustDomain: TrustDomain;
  /** Network of workloads and services that name none. */
  readonly network: string;
  /** Policies of this namespace apply to the whole mesh. */
  readonly rootNamespace: string;
  /** Whose Gateways to other networks hold, beside the root namespace's; none unless given. */
  readonly remoteGatewayNamespaces?: readonly string[];
  /** Virtual addresses of services without `clusterIP` come from here, one per family at most; empty gives them none. */
  readonly serviceCidrs: readonly Cidr[];
  /** Host names for which a waypoint has a port of its own, so that their requests are read without a label; none unless given. */
  readonly servedHosts?: readonly string[];
}

export interface ResourceIdentity {
  readonly kind: string;
  /** "" for kinds without namespace. */
  readonly namespace: string;
  readonly name: string;
}

export const identityKey = (id: ResourceIdentity): string => `${id.kind}/${id.namespace}/${id.name}`;
export const describeIdentity = (id: ResourceIdentity): string => (id.namespace === "" ? `${id.kind} ${id.name}` : `${id.kind} ${id.namespace}/${id.name}`);

/** One object as its file has it, free of its place: the same text in another file gives the same value. */
export interface ResourceOf<Kind extends string, Spec> {
  readonly kind: Kind;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  /** As written; "" when absent. Orders policies of equal rank, oldest first. */
  readonly creationTimestamp: string;
  readonly spec: Spec;
  /** Hash of the object's content. */
  readonly resourceVersion: string;
}

/** Tells something about a field of the resource in hand. */
export type Report = (severity: Severity, code: DiagnosticCode, path: FieldPath, message: string) => void;

/** One kind, as its file in `kinds/` defines it. */
export interface KindDefinition<Kind extends string, Schema extends z.ZodType> {
  readonly kind: Kind;
  readonly group: string;
  readonly versions: readonly string[];
  readonly namespaced: boolean;
  /** `document` for kinds whose fields stand beside their metadata, as ConfigMap's do; else they stand below `spec`. */
  readonly content?: "document";
  /** Made when a resource of the kind is read: see collectable.ts. */
  readonly spec: () => Schema;
  /** What a schema cannot say: rules across fields, labels and annotations. Errors break the resource. Knows no other resource. */
  check(resource: ResourceOf<Kind, z.output<Schema>>, report: Report): void;
}

export function defineKind<Kind extends string, Schema extends z.ZodType>(definition: KindDefinition<Kind, Schema>): KindDefinition<Kind, Schema> {
  return definition;
}

export type ResourceOfKind<Definition> = Definition extends KindDefinition<infer Kind, infer Schema> ? ResourceOf<Kind, z.output<Schema>> : never;

/** A resource in force, with the place it was read from. */
export interface Placed<R> {
  readonly resource: R;
  readonly file: string;
  readonly line: number;
  /** The document it is in, with the line that begins on, and where in it; fields are located by reading it again. */
  readonly document: { readonly text: string; readonly line: number };
  readonly path: FieldPath;
}

/** A diagnostic of a resource in force, before its field is located in the file. */
export interface ResourceDiagnostic {
  readonly placed: Placed<ResourceOf<string, unknown>>;
  readonly severity: Severity;
  readonly code: DiagnosticCode;
  readonly path: FieldPath;
  readonly message: string;
}

/** Tells something about a field of a resource in force. */
export type ReportFor = (placed: Placed<ResourceOf<string, unknown>>) => Report;

export const collectInto = (diagnostics: ResourceDiagnostic[]): ReportFor => (placed) => (severity, code, path, message) => diagnostics.push({ placed, severity, code, path, message });

export function provenanceOf(placed: Placed<ResourceOf<string, unknown>>, fieldPath = ""): Provenance {
  const { kind, namespace, name, resourceVersion } = placed.resource;
  return { kind, namespace, name, resourceVersion, fieldPath, ...(placed.file === IN_CLUSTER ? {} : { source: sourceOf(placed) }) };
}

/** In the place of a file, for objects of a Kubernetes API. */
export const IN_CLUSTER = "";

/** `shop.yaml:12`, for messages. */
export const sourceOf = ({ file, line }: Placed<unknown>): string => (file === IN_CLUSTER ? "in the cluster" : `${file}:${line}`);
