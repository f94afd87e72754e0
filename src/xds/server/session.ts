// One client's stream, without IO: what it asked for, what it was told, and what it is to be told next. Changes are not queued for it: when
// it is ready for more, what it has is compared with what there is. A slow client costs no memory and is not told what is past already.
//
//   policies → addresses → L7 access → traffic → routes → waypoint     what is new, each before what leads to it
//   waypoint → routes → … → addresses → policies                       what is gone, each after what led to it
//
// One such round tells of one published state, fixed when it begins: then the order holds whatever is published meanwhile. The next begins
// when the client has confirmed this one.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponseSchema } from "../../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { L7_CODECS, type L7Kind } from "../l7/kinds.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type EncodedResource } from "../resource.ts";
import type { ClientView, TypeStatus } from "../serving.ts";
import type { ChangeTable } from "./change-table.ts";
import type { World } from "./world.ts";

/** Names that a client may ask for, one by one: the addresses that the workloads of a node talk to. */
export const NAMES_MAX = 200_000;
export const NAME_CHARS_MAX = 1024;
/** Of a complaint that is kept for `weft status`. */
const COMPLAINT_CHARS_MAX = 4096;
/** What a small resource and its framing cost, to know how much a response holds. */
const RESOURCE_OVERHEAD_BYTES = 8;

const L7_ORDER: readonly L7Kind[] = ["requestPolicies", "requestAuthentications", "loginPolicies", "telemetry", "workloadLabels", "trafficPolicies", "routes", "waypoints"];
const ORDER: readonly string[] = [AUTHORIZATION_TYPE, ADDRESS_TYPE, ...L7_ORDER.map((kind) => L7_CODECS[kind].typeUrl)];
/** Where a type comes in a round; those that are not known come last. */
const placeOf = ({ typeUrl }: Subscription): number => ORDER.includes(typeUrl) ? ORDER.indexOf(typeUrl) : ORDER.length;
/** Types of ours: one that is not known here is of a newer client. */
const OWN_TYPES = "type.googleapis.com/weft.";
/** Of these, for one client: more than any version will add to another. */
export const UNKNOWN_TYPES_MAX = 16;
const KIND_BY_TYPE: ReadonlyMap<string, L7Kind> = new Map(L7_ORDER.map((kind) => [L7_CODECS[kind].typeUrl, kind]));

/** Told of everything of a type that is the same for all: a place in the table is all that is kept. */
interface Everything {
  readonly kind: "everything";
  readonly table: ChangeTable;
  /** What the client had from before; null once it has been compared. */
  had: ReadonlyMap<string, string> | null;
  toldState: number;
  /** Asked for by name, on top: answered even where nothing changed. */
  readonly asked: Set<string>;
}

/** Told of some: what it has is kept by name. `own`: what holds at its waypoint. */
interface Some {
  readonly kind: "onDemand" | "own";
  /** What it asked for; empty for `own`. */
  readonly names: Set<string>;
  /** Asked for and not answered yet. */
  readonly asked: Set<string>;
  readonly held: Map<string, string>;
  /** State, or version of the waypoint's records, that it was last compared with; -1 to compare again. */
  comparedWith: number;
}

interface Subscription {
  readonly typeUrl: string;
  readonly what: Everything | Some;
  sentState: number;
  ackedState: number;
  /** The first response is sent even when it is empty: the client waits for it. */
  answered: boolean;
  rejected: TypeStatus["rejected"];
}

/** What a round has for one type: shared encodings, and names. */
interface Difference {
  readonly upserts: readonly EncodedResource[];
  readonly removals: readonly string[];
}

interface Step extends Difference {
  readonly subscription: Subscription;
}

export interface Outgoing {
  readonly message: MessageInitShape<typeof DeltaDiscoveryResponseSchema>;
  /** About; for the budget. */
  readonly bytes: number;
}

export type SessionFault = { readonly code: "unknown_type" | "too_many_names" | "not_for_nodes"; readonly message: string };

export class Session {
  readonly #world: World;
  readonly #view: ClientView;
  readonly #subscriptions = new Map<string, Subscription>();
  /** By nonce. */
  readonly #unconfirmed = new Map<string, { readonly subscription: Subscription; readonly state: number }>();
  readonly #wallMs: () => number;
  #nonce = 0;
  #round: Step[] = [];
  #roundState = 0;

  constructor(world: World, view: ClientView, wallMs: () => number) {
    this.#world = world;
    this.#view = view;
    this.#wallMs = wallMs;
  }

  /** Takes one request in. @returns a fault that ends the stream, or null. */
  request(request: DeltaDiscoveryRequest): SessionFault | null {
    this.#confirm(request);
    const known = this.#subscriptions.get(request.typeUrl);
    if (known === undefined) return this.#subscribe(request);
    return this.#change(known, request);
  }

  /** The next response that is due, or null: nothing is, or the client has not confirmed what it was told. */
  next(): Outgoing | null {
    for (;;) {
      for (let step = this.#round.shift(); step !== undefined; step = this.#round.shift()) {
        const outgoing = this.#respond(step);
        if (outgoing !== null) return outgoing;
      }
      if (this.#unconfirmed.size > 0 || !this.#beginRound()) return null;
    }
  }

  get types(): TypeStatus[] {
    return [...this.#subscriptions.values()].map(({ typeUrl, what, sentState, ackedState, rejected }) => ({
      typeUrl, subscription: what.kind, sentState, ackedState, resourceCount: what.kind === "everything" ? what.table.size : what.held.size, rejected,
    }));
  }

  /** The state up to which removals have been told; what was removed later must be remembered for this client. Infinity when it needs none. */
  get removalsToldState(): number {
    let least = Infinity;
    for (const { what } of this.#subscriptions.values()) if (what.kind === "everything" && what.had === null) least = Math.min(least, what.toldState);
    return least;
  }

  // ---- requests

  #confirm({ responseNonce, errorDetail }: DeltaDiscoveryRequest): void {
    const confirmed = responseNonce === "" ? undefined : this.#unconfirmed.get(responseNonce);
    if (confirmed === undefined) return;
    this.#unconfirmed.delete(responseNonce);
    const { subscription, state } = confirmed;
    if (errorDetail === undefined) {
      subscription.ackedState = Math.max(subscription.ackedState, state);
      subscription.rejected = null;
    } else {
      subscription.rejected = { message: errorDetail.message.slice(0, COMPLAINT_CHARS_MAX), state, atMs: this.#wallMs() };
    }
  }

  #subscribe(request: DeltaDiscoveryRequest): SessionFault | null {
    const { typeUrl, resourceNamesSubscribe, resourceNamesUnsubscribe, initialResourceVersions } = request;
    const kind = KIND_BY_TYPE.get(typeUrl);
    if (kind !== undefined && this.#view.kind !== "waypoint") return { code: "not_for_nodes", message: `${typeUrl} is told to waypoints only; this client says that it is a node` };
    const table = typeUrl === ADDRESS_TYPE ? this.#world.addresses : typeUrl === AUTHORIZATION_TYPE ? this.#world.policies : null;
    if (table === null && kind === undefined && this.#isOfNewerClient(typeUrl)) return this.#subscribeToNothing(typeUrl);
    if (table === null && kind === undefined) return { code: "unknown_type", message: `no resources of type ${JSON.stringify(typeUrl.slice(0, 200))} are served here, but of ${ORDER.join(", ")}` };
    const had = new Map(Object.entries(initialResourceVersions));
    // Without names, or with the star, everything; the star taken back at once means nothing but what will be asked for.
    const all = (resourceNamesSubscribe.length === 0 || resourceNamesSubscribe.includes("*")) && !resourceNamesUnsubscribe.includes("*");
    const what: Everything | Some = kind !== undefined || table === null
      ? { kind: "own", names: new Set(), asked: new Set(), held: had, comparedWith: -1 }
      : all
        ? { kind: "everything", table, had, toldState: 0, asked: new Set() }
        : { kind: "onDemand", names: new Set(had.keys()), asked: new Set(), held: had, comparedWith: -1 };
    const subscription: Subscription = { typeUrl, what, sentState: 0, ackedState: 0, answered: false, rejected: null };
    this.#subscriptions.set(typeUrl, subscription);
    return this.#ask(what, resourceNamesSubscribe);
  }

  #isOfNewerClient(typeUrl: string): boolean {
    return typeUrl.startsWith(OWN_TYPES) && [...this.#subscriptions.keys()].filter((known) => !ORDER.includes(known)).length < UNKNOWN_TYPES_MAX;
  }

  /** There is none of it, which the client waits to hear. What it has of it, from a replica of its own version, stays. */
  #subscribeToNothing(typeUrl: string): null {
    const what: Some = { kind: "own", names: new Set(), asked: new Set(), held: new Map(), comparedWith: -1 };
    this.#subscriptions.set(typeUrl, { typeUrl, what, sentState: 0, ackedState: 0, answered: false, rejected: null });
    return null;
  }

  #change(subscription: Subscription, { resourceNamesSubscribe, resourceNamesUnsubscribe }: DeltaDiscoveryRequest): SessionFault | null {
    const { what } = subscription;
    for (const name of resourceNamesUnsubscribe) {
      what.asked.delete(name);
      if (what.kind !== "onDemand" || !what.names.delete(name)) continue;
      // The client forgets by itself what it no longer asks for.
      what.held.delete(name);
      what.comparedWith = -1;
    }
    return this.#ask(what, resourceNamesSubscribe);
  }

  #ask(what: Everything | Some, names: readonly string[]): SessionFault | null {
    for (const name of names) {
      if (name === "*" || what.kind === "own") continue;
      if (name.length > NAME_CHARS_MAX) return { code: "too_many_names", message: `a name of ${name.length} characters was asked for, at most ${NAME_CHARS_MAX} are looked up` };
      what.asked.add(name);
      if (what.kind === "onDemand") {
        what.names.add(name);
        what.comparedWith = -1;
      }
    }
    const count = what.kind === "onDemand" ? what.names.size : what.asked.size;
    return count > NAMES_MAX ? { code: "too_many_names", message: `${count} names are asked for, at most ${NAMES_MAX} are kept for one client; ask for everything instead` } : null;
  }

  // ---- rounds

  #beginRound(): boolean {
    // What is being put in its place is told when it is whole.
    if (this.#world.state === 0 || !this.#world.isWhole) return false;
    const due = [...this.#subscriptions.values()].filter((subscription) => this.#isDue(subscription)).sort((a, b) => placeOf(a) - placeOf(b));
    if (due.length === 0 || (due.some(({ typeUrl, what }) => typeUrl === ADDRESS_TYPE && what.kind === "onDemand") && !this.#world.canBeAskedByName)) return false;
    this.#roundState = this.#world.state;
    const steps = due.map((subscription) => ({ subscription, ...this.#difference(subscription) }));
    this.#round = [...steps.map((step): Step => ({ ...step, removals: [] })), ...steps.map((step): Step => ({ ...step, upserts: [] })).reverse()];
    return true;
  }

  #isDue({ what, answered }: Subscription): boolean {
    if (!answered || what.asked.size > 0) return true;
    if (what.kind === "everything") return what.had !== null || what.table.lastState > what.toldState;
    return what.comparedWith !== this.#comparable(what);
  }

  /** What moves when the wanted set of a subscription may have changed. */
  #comparable(what: Some): number {
    return what.kind === "own" ? this.#world.waypointVersion : this.#world.state;
  }

  #wanted(typeUrl: string, what: Some): ReadonlyMap<string, EncodedResource> {
    what.comparedWith = this.#comparable(what);
    const kind = KIND_BY_TYPE.get(typeUrl);
    if (kind !== undefined) return this.#view.kind === "waypoint" ? this.#world.waypointResources(this.#view.gateway)[kind] : new Map();
    const wanted = new Map<string, EncodedResource>();
    const add = (resources: readonly EncodedResource[]): void => {
      for (const resource of resources) wanted.set(resource.name, resource);
    };
    if (typeUrl === AUTHORIZATION_TYPE) for (const name of what.names) add([this.#world.policies.get(name)].filter((resource) => resource !== undefined));
    else if (typeUrl === ADDRESS_TYPE) {
      if (this.#view.kind === "node") add(this.#world.addressesOfNode(this.#view.node));
      for (const name of what.names) add(this.#world.resolveAddress(name));
    }
    return wanted;
  }

  #difference({ typeUrl, what }: Subscription): Difference {
    return what.kind === "everything" ? this.#differenceOfAll(what) : this.#differenceOfSome(typeUrl, what);
  }

  #differenceOfAll(what: Everything): Difference {
    const { had, table, toldState } = what;
    const upserts = new Set<EncodedResource>();
    const removals = new Set<string>();
    if (had !== null) {
      for (const resource of table.all()) if (had.get(resource.name) !== resource.version) upserts.add(resource);
      for (const name of had.keys()) if (table.get(name) === undefined) removals.add(name);
      what.had = null;
    } else {
      for (const { name, resource } of table.changedAfter(toldState)) {
        if (resource === null) removals.add(name);
        else upserts.add(resource);
      }
    }
    for (const name of what.asked) {
      const resource = table.get(name);
      if (resource === undefined) removals.add(name);
      else upserts.add(resource);
    }
    what.asked.clear();
    what.toldState = this.#roundState;
    return { upserts: [...upserts], removals: [...removals] };
  }

  #differenceOfSome(typeUrl: string, what: Some): Difference {
    const wanted = this.#wanted(typeUrl, what);
    const upserts = [...wanted.values()].filter(({ name, version }) => what.held.get(name) !== version || what.asked.has(name));
    // What is asked for and is not there is answered as if it were gone.
    const removals = new Set([...what.held.keys(), ...what.asked].filter((name) => !wanted.has(name)));
    for (const { name, version } of upserts) what.held.set(name, version);
    for (const name of removals) what.held.delete(name);
    what.asked.clear();
    return { upserts, removals: [...removals] };
  }

  #respond({ subscription, upserts, removals }: Step): Outgoing | null {
    const state = this.#roundState;
    subscription.sentState = state;
    if (upserts.length === 0 && removals.length === 0 && subscription.answered) {
      if (subscription.rejected === null && ![...this.#unconfirmed.values()].some((other) => other.subscription === subscription)) subscription.ackedState = state;
      return null;
    }
    subscription.answered = true;
    const nonce = String(++this.#nonce);
    this.#unconfirmed.set(nonce, { subscription, state });
    let bytes = 0;
    for (const resource of upserts) bytes += resource.bytes.length + RESOURCE_OVERHEAD_BYTES;
    for (const name of removals) bytes += name.length + RESOURCE_OVERHEAD_BYTES;
    return { message: { typeUrl: subscription.typeUrl, nonce, systemVersionInfo: String(state), resources: upserts.map((resource) => resource.bytes), removedResources: [...removals] }, bytes };
  }
}
