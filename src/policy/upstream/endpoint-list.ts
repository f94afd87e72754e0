// The endpoints of an upstream as the mesh has them now, each with what was observed of it before. Of a name that stands for several
// addresses each is an endpoint. Done when something changes, not per request.

import { type IpAddress, isIpv6 } from "../../core/ip.ts";
import type { Service, Workload } from "../../mesh/records.ts";
import type { EndpointSet } from "../../mesh/store.ts";
import { type CandidateRequest, chooseAddress, judgeEndpoint, type Picked } from "../candidates.ts";
import { NO_ENDPOINTS } from "./balancers/picker.ts";
import { UpstreamEndpoint } from "./endpoint.ts";
import { hasLabels, type LabelSource } from "./labels.ts";
import type { UpstreamSettings } from "./settings.ts";

/** Who asks for which endpoints; as for connections. */
export interface RefreshRequest extends CandidateRequest {
  readonly endpoints: EndpointSet;
  /** Of endpoints that are known by a DNS name; null: whoever dials resolves it. */
  readonly names: NameSource | null;
}

/** Addresses of names, as far as they are known. */
export interface NameSource {
  /** Changes whenever an answer would be another one. */
  readonly version: number;
  addresses(hostname: string, nowMs: number): readonly IpAddress[];
}

/** What a list was made from. */
interface ListSource {
  readonly version: number;
  readonly namesVersion: number;
  readonly service: Service;
  readonly source: Workload;
  readonly endpoints: EndpointSet;
}

const NO_ADDRESSES: readonly IpAddress[] = Object.freeze([]);
const NO_NAMES: readonly string[] = Object.freeze([]);

export class EndpointList {
  readonly #labels: LabelSource;
  readonly #byKey = new Map<string, UpstreamEndpoint>();
  #members: readonly UpstreamEndpoint[] = NO_ENDPOINTS;
  #hostnames: readonly string[] = NO_NAMES;
  #madeOf: ListSource | null = null;

  constructor(labels: LabelSource) {
    this.#labels = labels;
  }

  /** In the order of their keys. */
  get members(): readonly UpstreamEndpoint[] {
    return this.#members;
  }

  /** DNS names that its endpoints are known by. */
  get hostnames(): readonly string[] {
    return this.#hostnames;
  }

  find(key: string): UpstreamEndpoint | undefined {
    return this.#byKey.get(key);
  }

  /** True while it would come out the same. */
  isMadeOf({ endpoints, names, service, source }: RefreshRequest): boolean {
    const made = this.#madeOf;
    return made !== null && made.version === endpoints.version && made.namesVersion === (names?.version ?? 0) && made.endpoints === endpoints && made.service === service && made.source === source;
  }

  /** Takes over the present endpoints; those that stay keep their object. Returns those that are gone. */
  refresh(request: RefreshRequest, { subset, healthCheck }: UpstreamSettings, nowMs: number): Iterable<UpstreamEndpoint> {
    const { endpoints, service, source } = request;
    // Those that a service begins with are no newcomers that are to be warmed up.
    const sinceMs = this.#madeOf === null ? -Infinity : nowMs;
    const gone = new Set(this.#members);
    const members: UpstreamEndpoint[] = [];
    const hostnames = new Set<string>();
    for (const candidate of endpoints.endpoints) {
      const { workload } = candidate;
      if (subset !== null && !hasLabels(workload, subset.labels, this.#labels)) continue;
      const target = judgeEndpoint(candidate, request);
      if (typeof target === "string") continue;
      if (target.ip === null && workload.hostname !== "") hostnames.add(workload.hostname);
      for (const [key, at] of placesOf(target, request, nowMs)) {
        let member = this.#byKey.get(key);
        if (member === undefined) {
          member = new UpstreamEndpoint(key, at, sinceMs);
          if (healthCheck !== null) member.health = "unknown";
          this.#byKey.set(key, member);
        } else {
          member.target = at;
          member.weight = workload.capacity;
          gone.delete(member);
        }
        member.near = isNear(source, workload);
        members.push(member);
      }
    }
    for (const endpoint of gone) {
      this.#byKey.delete(endpoint.key);
      endpoint.gone = true;
      endpoint.usable = false;
    }
    // The order of endpoints depends on the history of changes; a choice must not.
    members.sort((a, b) => (a.key < b.key ? -1 : 1));
    this.#members = members;
    this.#hostnames = hostnames.size === 0 ? NO_NAMES : [...hostnames];
    this.#madeOf = { version: endpoints.version, namesVersion: request.names?.version ?? 0, service, source, endpoints };
    return gone;
  }
}

function isNear({ locality: here }: Workload, { locality: there }: Workload): boolean {
  return here.zone === "" || (there.zone === here.zone && there.region === here.region);
}

/** Where an endpoint is: one place, or of a name all that it stands for. */
function placesOf(target: Picked, { names, service, family }: RefreshRequest, nowMs: number): readonly (readonly [key: string, at: Picked])[] {
  const { workload } = target;
  const found = target.ip === null && names !== null && workload.hostname !== "" ? names.addresses(workload.hostname, nowMs) : NO_ADDRESSES;
  // Both families are not used side by side: where one has no way out, half of all requests would fail.
  const first = chooseAddress(found, service.ipFamilies, family);
  if (first === null) return [[workload.uid, target]];
  return found.filter((ip) => isIpv6(ip) === isIpv6(first)).map((ip) => [`${workload.uid}@${ip}`, { ...target, ip }]);
}
