// Which certificates this node holds, fetches and renews. Pure: `step` takes the state, an event and the time, and returns the effects to
// do; svid-cache.ts does them. Knows no CA, no disk and no socket.
//
// Two clocks, on purpose. Delays (back-off, renewal alarms) run on the monotonic clock; validity is judged on the wall clock. The wall
// clock may jump: every alarm and every tick looks at it again, so a jump of a day costs at most one tick, never a certificate.
//
//   wanted by a workload / a connection            needSvid            fetched              half-life
//   ────────────────▶ waiting ──slot free──▶ fetching ──────▶ held ──────────▶ waiting, old one kept
//                        ▲                      │ failed: back-off          │ dropped, or expired
//                        └──────────────────────┘                           ▼ svidDropped
//
// A fetch that failed is not yet the end for the connections that wait: a replica of the CA may just have been replaced. They are told when
// the CA has refused again and again, or has not answered for a while.

import type { Random } from "../core/ports.ts";
import { unreachable } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Svid, SvidPriority } from "./svid.ts";

/** As the reference proxy: enough to keep a CA busy, too few to flood it when a node starts. */
export const FETCHES_MAX = 8;
/** A node runs some hundred pods; more identities than this is a fault elsewhere. */
export const IDENTITIES_MAX = 4096;
export const BACKOFF_FIRST_MS_MIN = 500;
export const BACKOFF_FIRST_MS_MAX = 1000;
export const BACKOFF_MS_MAX = 150_000;
/** Renewal falls between 0.45 and 0.55 of the lifetime, so that the certificates of one start do not renew as one wave. */
const HALF_LIFE_JITTER = 0.05;
/** Since the first failure: as long may a CA be away before the connections that wait for it are told. Less than they wait by themselves. */
export const PATIENCE_MS = 5_000;
/** A CA that has refused so often means it; the first time it may not have heard yet of who is asking. */
export const REFUSALS_BELIEVED = 3;
/** A jump of the wall clock is noticed within this time. */
export const TICK_MS = 10_000;
/** An identity that no workload here has (asked for by a late connection) is forgotten after this idle time. */
export const UNOWNED_IDLE_MS = 10 * 60_000;
/** At least this long, or a quarter of the lifetime if that is shorter, lies between a certificate and its renewal. */
const RENEW_GAP_MS_MIN = 60_000;

/** What is being done about an identity now. */
type Work =
  | { readonly kind: "idle" }
  /** In the queue; `sequence` keeps first come, first served inside one priority. */
  | { readonly kind: "waiting"; readonly priority: SvidPriority; readonly sequence: number }
  | { readonly kind: "fetching"; readonly priority: SvidPriority; readonly fetchId: number; readonly sinceMs: number }
  /** The last fetch failed; the next starts at `untilMs` (monotonic). */
  | { readonly kind: "backingOff"; readonly priority: SvidPriority; readonly untilMs: number; readonly failures: number; readonly message: string };

interface Entry {
  readonly spiffeId: SpiffeId;
  /** Number of local workloads that run under this identity. */
  workloads: number;
  /** The newest certificate, kept past its end: a clock that jumped ahead may come back. */
  svid: Svid | null;
  /** Whether the data plane has been given it. */
  published: boolean;
  /** Monotonic; a CA or clock that is wrong by hours must not make us renew in a loop. */
  renewNotBeforeMs: number;
  /** Part of the lifetime after which this certificate is renewed, drawn once for each. */
  renewAtFraction: number;
  /** Since the last certificate; and when the first of them began, monotonic. */
  failures: number;
  failingSinceMs: number;
  /** Whether the CA refused it when it was asked last. */
  refused: boolean;
  work: Work;
  /** Monotonic time of the last sign that somebody wants it. */
  wantedAtMs: number;
}

/** Why a fetch brought nothing. */
export interface FetchFailure {
  readonly message: string;
  /** By the CA's own word. */
  readonly refused?: boolean;
}

interface Fetch {
  readonly fetchId: number;
  readonly spiffeId: SpiffeId;
}

export type SvidEvent =
  | { readonly kind: "workloadAdded"; readonly spiffeId: SpiffeId }
  | { readonly kind: "workloadRemoved"; readonly spiffeId: SpiffeId }
  | { readonly kind: "needed"; readonly spiffeId: SpiffeId; readonly priority: SvidPriority }
  /** A certificate found on disk at start, already checked. */
  | { readonly kind: "restored"; readonly svid: Svid }
  | ({ readonly kind: "fetched"; readonly svid: Svid } & Fetch)
  | ({ readonly kind: "fetchFailed" } & Fetch & FetchFailure)
  /** Renew now (an operator's wish, a new root). */
  | { readonly kind: "renew"; readonly spiffeId: SpiffeId }
  | { readonly kind: "tick" };

export type SvidEffect =
  | { readonly kind: "fetch"; readonly fetchId: number; readonly spiffeId: SpiffeId }
  | { readonly kind: "cancelFetch"; readonly fetchId: number }
  /** A new certificate to use and to keep on disk. */
  | { readonly kind: "publish"; readonly svid: Svid }
  /** Nobody here needs the identity any more, or its certificate has run out: forget it, on disk too when `forget`. */
  | { readonly kind: "drop"; readonly spiffeId: SpiffeId; readonly forget: boolean }
  /** Told once for each failed fetch. */
  | { readonly kind: "failed"; readonly spiffeId: SpiffeId; readonly message: string }
  /** Whoever waits for it need not any longer. Told with a failure that settles it, and to whoever asks after that. */
  | { readonly kind: "unavailable"; readonly spiffeId: SpiffeId; readonly message: string };

export interface Times {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export interface SvidCacheState {
  readonly entries: Map<SpiffeId, Entry>;
  fetching: number;
  nextFetchId: number;
  nextSequence: number;
  readonly random: Random;
}

const URGENCY: Readonly<Record<SvidPriority, number>> = { realtime: 0, warmup: 1, background: 2 };

export function newSvidCacheState(random: Random): SvidCacheState {
  return { entries: new Map(), fetching: 0, nextFetchId: 1, nextSequence: 1, random };
}

/** Advances `state` in place and returns what to do, in order. */
export function step(state: SvidCacheState, event: SvidEvent, now: Times): SvidEffect[] {
  const effects: SvidEffect[] = [];
  switch (event.kind) {
    case "workloadAdded": {
      const entry = entryOf(state, event.spiffeId, now, effects);
      if (entry === null) break;
      entry.workloads++;
      if (usable(entry, now) === null) ask(state, entry, "warmup");
      break;
    }
    case "workloadRemoved":
      removeWorkload(state, event.spiffeId, effects);
      break;
    case "needed":
      need(state, event, now, effects);
      break;
    case "restored":
      restore(state, event.svid, now, effects);
      break;
    case "fetched":
      fetched(state, event, now, effects);
      break;
    case "fetchFailed":
      fetchFailed(state, event, now, effects);
      break;
    case "renew": {
      const entry = state.entries.get(event.spiffeId);
      if (entry !== undefined) ask(state, entry, "background");
      break;
    }
    case "tick":
      break;
    default:
      return unreachable(event);
  }
  reviewAll(state, now, effects);
  startFetches(state, now, effects);
  return effects;
}

/** Monotonic time at which `step` wants a tick at the latest; null when nothing is pending. */
export function nextAlarmMs(state: SvidCacheState, now: Times): number | null {
  let alarmMs: number | null = state.entries.size === 0 ? null : now.monotonicMs + TICK_MS;
  for (const entry of state.entries.values()) {
    const candidates = [
      entry.work.kind === "backingOff" ? entry.work.untilMs : null,
      entry.work.kind === "idle" && entry.svid !== null ? Math.max(entry.renewNotBeforeMs, now.monotonicMs + Math.max(0, renewAtMs(entry) - now.wallMs)) : null,
      entry.svid !== null && entry.published ? now.monotonicMs + Math.max(0, entry.svid.notAfterMs - now.wallMs) : null,
    ];
    for (const candidate of candidates) if (candidate !== null && (alarmMs === null || candidate < alarmMs)) alarmMs = candidate;
  }
  return alarmMs;
}

/** The certificate to use now, if it is in its validity by the wall clock. */
export function heldSvid(state: SvidCacheState, spiffeId: SpiffeId, now: Times): Svid | null {
  const entry = state.entries.get(spiffeId);
  return entry === undefined ? null : usable(entry, now);
}

/** What workloads wait for: no certificate yet, and nobody has said that there will be none. */
export function awaited(state: SvidCacheState, now: Times): SpiffeId[] {
  return [...state.entries.values()].filter((entry) => entry.workloads > 0 && usable(entry, now) === null && !isRefused(entry)).map(({ spiffeId }) => spiffeId);
}

function entryOf(state: SvidCacheState, spiffeId: SpiffeId, now: Times, effects: SvidEffect[]): Entry | null {
  const known = state.entries.get(spiffeId);
  if (known !== undefined) {
    known.wantedAtMs = now.monotonicMs;
    return known;
  }
  if (state.entries.size >= IDENTITIES_MAX) {
    const message = `this node already holds ${IDENTITIES_MAX} identities`;
    effects.push({ kind: "failed", spiffeId, message }, { kind: "unavailable", spiffeId, message });
    return null;
  }
  const entry: Entry = { spiffeId, workloads: 0, svid: null, published: false, renewNotBeforeMs: 0, renewAtFraction: 0.5, failures: 0, failingSinceMs: 0, refused: false, work: { kind: "idle" }, wantedAtMs: now.monotonicMs };
  state.entries.set(spiffeId, entry);
  return entry;
}

function need(state: SvidCacheState, event: { readonly spiffeId: SpiffeId; readonly priority: SvidPriority }, now: Times, effects: SvidEffect[]): void {
  const entry = entryOf(state, event.spiffeId, now, effects);
  if (entry === null) return;
  const svid = usable(entry, now);
  if (svid !== null) {
    effects.push({ kind: "publish", svid });
    return;
  }
  if (entry.work.kind === "backingOff" && isSettled(entry, now)) effects.push({ kind: "unavailable", spiffeId: entry.spiffeId, message: entry.work.message });
  ask(state, entry, event.priority);
}

/** Puts an identity in the queue, or raises its priority there. A fetch under way serves everyone who asks. */
function ask(state: SvidCacheState, entry: Entry, priority: SvidPriority): void {
  const { work } = entry;
  switch (work.kind) {
    case "idle":
      entry.work = { kind: "waiting", priority, sequence: state.nextSequence++ };
      return;
    case "waiting":
    case "backingOff":
    case "fetching":
      if (URGENCY[priority] < URGENCY[work.priority]) entry.work = { ...work, priority };
      return;
    default:
      return unreachable(work);
  }
}

function removeWorkload(state: SvidCacheState, spiffeId: SpiffeId, effects: SvidEffect[]): void {
  const entry = state.entries.get(spiffeId);
  if (entry === undefined || entry.workloads === 0) return;
  entry.workloads--;
  if (entry.workloads === 0) forget(state, entry, effects);
}

function forget(state: SvidCacheState, entry: Entry, effects: SvidEffect[]): void {
  if (entry.work.kind === "fetching") {
    effects.push({ kind: "cancelFetch", fetchId: entry.work.fetchId });
    state.fetching--;
  }
  state.entries.delete(entry.spiffeId);
  effects.push({ kind: "drop", spiffeId: entry.spiffeId, forget: true });
}

function restore(state: SvidCacheState, svid: Svid, now: Times, effects: SvidEffect[]): void {
  if (now.wallMs >= svid.notAfterMs) return;
  const entry = entryOf(state, svid.spiffeId, now, effects);
  if (entry === null || entry.svid !== null) return;
  hold(state, entry, svid, now);
  entry.renewNotBeforeMs = now.monotonicMs;
  effects.push({ kind: "publish", svid });
}

function hold(state: SvidCacheState, entry: Entry, svid: Svid, now: Times): void {
  entry.svid = svid;
  entry.published = true;
  entry.renewNotBeforeMs = now.monotonicMs + Math.min(RENEW_GAP_MS_MIN, (svid.notAfterMs - svid.notBeforeMs) / 4);
  entry.failures = 0;
  entry.renewAtFraction = 0.5 + (state.random.next() * 2 - 1) * HALF_LIFE_JITTER;
}

function fetched(state: SvidCacheState, event: Fetch & { readonly svid: Svid }, now: Times, effects: SvidEffect[]): void {
  const fetching = fetchingEntry(state, event);
  if (fetching === null) return;
  const { entry, work: { sinceMs } } = fetching;
  state.fetching--;
  entry.refused = false;
  entry.work = { kind: "idle" };
  if (now.wallMs >= event.svid.notAfterMs) {
    backOff(state, entry, { sinceMs, priority: "warmup", message: `the certificate for ${entry.spiffeId} had expired when it came; is this machine's clock right?`, now, effects });
    return;
  }
  hold(state, entry, event.svid, now);
  effects.push({ kind: "publish", svid: event.svid });
}

function fetchFailed(state: SvidCacheState, event: Fetch & FetchFailure, now: Times, effects: SvidEffect[]): void {
  const fetching = fetchingEntry(state, event);
  if (fetching === null) return;
  const { entry, work: { sinceMs, priority } } = fetching;
  state.fetching--;
  entry.refused = event.refused ?? false;
  backOff(state, entry, { sinceMs, priority, message: event.message, now, effects });
}

/** An answer counts only for the fetch that is under way: not for a cancelled one, nor for the identity's previous life. */
function fetchingEntry(state: SvidCacheState, event: Fetch): { readonly entry: Entry; readonly work: Extract<Work, { kind: "fetching" }> } | null {
  const entry = state.entries.get(event.spiffeId);
  return entry?.work.kind === "fetching" && entry.work.fetchId === event.fetchId ? { entry, work: entry.work } : null;
}

/** Doubles from a random start in [0.5 s, 1 s] to 150 s; while a valid certificate is held, the next try is never later than its end. */
function backOff(state: SvidCacheState, entry: Entry, options: { sinceMs: number; priority: SvidPriority; message: string; now: Times; effects: SvidEffect[] }): void {
  const { now } = options;
  if (entry.failures === 0) entry.failingSinceMs = options.sinceMs;
  entry.failures++;
  const firstMs = BACKOFF_FIRST_MS_MIN + state.random.next() * (BACKOFF_FIRST_MS_MAX - BACKOFF_FIRST_MS_MIN);
  let delayMs = Math.min(BACKOFF_MS_MAX, firstMs * 2 ** Math.min(entry.failures - 1, 20));
  const leftMs = entry.svid === null ? -1 : entry.svid.notAfterMs - now.wallMs;
  if (leftMs > BACKOFF_FIRST_MS_MIN) delayMs = Math.min(delayMs, Math.max(BACKOFF_FIRST_MS_MIN, leftMs - BACKOFF_FIRST_MS_MAX));
  entry.work = { kind: "backingOff", priority: options.priority, untilMs: now.monotonicMs + delayMs, failures: entry.failures, message: options.message };
  const failure = { spiffeId: entry.spiffeId, message: options.message };
  options.effects.push({ kind: "failed", ...failure });
  if (isSettled(entry, now)) options.effects.push({ kind: "unavailable", ...failure });
}

/** Nobody need wait for a certificate that cannot be had for now. */
function isSettled(entry: Entry, now: Times): boolean {
  return isRefused(entry) || (entry.failures > 0 && now.monotonicMs - entry.failingSinceMs >= PATIENCE_MS);
}

const isRefused = (entry: Entry): boolean => entry.refused && entry.failures >= REFUSALS_BELIEVED;

/** What time alone changes: back-offs that end, certificates that reach half-life or their end, identities nobody wants. */
function reviewAll(state: SvidCacheState, now: Times, effects: SvidEffect[]): void {
  for (const entry of state.entries.values()) {
    if (entry.work.kind === "backingOff" && now.monotonicMs >= entry.work.untilMs) {
      entry.work = { kind: "waiting", priority: entry.work.priority, sequence: state.nextSequence++ };
    }
    reviewValidity(state, entry, now, effects);
    const mayRenew = entry.svid !== null && entry.work.kind === "idle" && now.monotonicMs >= entry.renewNotBeforeMs;
    if (mayRenew && now.wallMs >= renewAtMs(entry)) ask(state, entry, "background");
    if (entry.workloads === 0 && now.monotonicMs - entry.wantedAtMs >= UNOWNED_IDLE_MS) forget(state, entry, effects);
  }
}

/** Withdraws a certificate that has run out, and brings it back should the wall clock have been wrong. */
function reviewValidity(state: SvidCacheState, entry: Entry, now: Times, effects: SvidEffect[]): void {
  if (entry.svid === null) return;
  const valid = now.wallMs <= entry.svid.notAfterMs;
  if (entry.published === valid) return;
  entry.published = valid;
  if (valid) {
    effects.push({ kind: "publish", svid: entry.svid });
  } else {
    effects.push({ kind: "drop", spiffeId: entry.spiffeId, forget: false });
    ask(state, entry, "warmup");
  }
}

function startFetches(state: SvidCacheState, now: Times, effects: SvidEffect[]): void {
  while (state.fetching < FETCHES_MAX) {
    const next = mostUrgent(state);
    if (next === null || next.work.kind !== "waiting") return;
    const fetchId = state.nextFetchId++;
    next.work = { kind: "fetching", priority: next.work.priority, fetchId, sinceMs: now.monotonicMs };
    state.fetching++;
    effects.push({ kind: "fetch", fetchId, spiffeId: next.spiffeId });
  }
}

function mostUrgent(state: SvidCacheState): Entry | null {
  let best: Entry | null = null;
  let bestRank = Infinity;
  for (const entry of state.entries.values()) {
    if (entry.work.kind !== "waiting") continue;
    const rank = URGENCY[entry.work.priority] * Number.MAX_SAFE_INTEGER / 4 + entry.work.sequence;
    if (rank >= bestRank) continue;
    best = entry;
    bestRank = rank;
  }
  return best;
}

/** Wall time of renewal. */
function renewAtMs(entry: Entry): number {
  if (entry.svid === null) return 0;
  const { notBeforeMs, notAfterMs } = entry.svid;
  return notBeforeMs + (notAfterMs - notBeforeMs) * entry.renewAtFraction;
}

/** notBefore is not looked at: after our clock jumped back the certificate is as good to our peers as before. */
function usable(entry: Entry, now: Times): Svid | null {
  return entry.svid !== null && now.wallMs <= entry.svid.notAfterMs ? entry.svid : null;
}
