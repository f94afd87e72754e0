// Which of several replicas writes: the one that holds the Lease. The others wait until it has not been renewed for as long as it says.
// Clocks of other machines are not trusted: what counts is for how long we ourselves have seen it unchanged.

import { z } from "zod";
import type { Clock, Random } from "../core/ports.ts";
import type { Timers } from "../net/timers.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Api } from "../runtime/kubernetes/api.ts";
import { collectionPath, objectPath, type ResourceType } from "../runtime/kubernetes/api-path.ts";

const LEASE: ResourceType = { group: "coordination.k8s.io", version: "v1", plural: "leases", kind: "Lease", namespaced: true };
/** As Kubernetes' own controllers have it. */
export const LEASE_MS = 15_000;
/** The holder stops writing when it could not renew for this long: before anybody else may begin. */
const RENEW_DEADLINE_MS = 10_000;
const RENEW_MS = 3_000;

const schema = z.object({
  metadata: z.object({ resourceVersion: z.string() }),
  spec: z.object({ holderIdentity: z.string().nullish(), leaseTransitions: z.number().nullish(), acquireTime: z.string().nullish(), renewTime: z.string().nullish() }).nullish(),
});
type Found = z.output<typeof schema>;

export interface LeaseOptions {
  readonly api: Api;
  readonly clock: Clock;
  readonly random: Random;
  readonly timers: Timers;
  readonly log: Logger;
  readonly namespace: string;
  readonly name: string;
  /** Of this replica; no other has it. */
  readonly identity: string;
  readonly onChange: (holds: boolean) => void;
}

export class Lease {
  readonly #options: LeaseOptions;
  #holds = false;
  #observed: { readonly version: string; readonly sinceMs: number } | null = null;
  #cancel: () => void = () => {};
  #cancelDeadline: () => void = () => {};
  #stopped = false;
  #holder = "";

  constructor(options: LeaseOptions) {
    this.#options = options;
  }

  get holds(): boolean {
    return this.#holds;
  }

  /** Whoever had it when it was last looked at. */
  get holder(): string {
    return this.#holder;
  }

  start(): void {
    void this.#round();
  }

  /** Gives it back, so that another need not wait. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    const held = this.#holds;
    this.#set(false);
    if (!held) return;
    const found = await this.#read();
    if (found !== null && found !== "unknown" && found.spec?.holderIdentity === this.#options.identity) await this.#write(found, "");
  }

  async #round(): Promise<void> {
    const { random, timers } = this.#options;
    await this.#try();
    if (!this.#stopped) this.#cancel = timers.after(RENEW_MS * (0.8 + random.next() * 0.4), () => void this.#round());
  }

  async #try(): Promise<void> {
    const { clock, identity } = this.#options;
    const found = await this.#read();
    if (this.#stopped || found === "unknown") return;
    const nowMs = clock.monotonicMs();
    const holder = found?.spec?.holderIdentity ?? "";
    this.#holder = holder;
    if (found !== null && holder !== "" && holder !== identity) {
      this.#set(false);
      if (this.#observed?.version !== found.metadata.resourceVersion) this.#observed = { version: found.metadata.resourceVersion, sinceMs: nowMs };
      if (nowMs - this.#observed.sinceMs < LEASE_MS) return;
    }
    if (!(await this.#write(found, identity)) || this.#stopped) return;
    this.#holder = identity;
    this.#set(true);
    this.#cancelDeadline();
    this.#cancelDeadline = this.#options.timers.after(RENEW_DEADLINE_MS, () => this.#set(false));
  }

  async #read(): Promise<Found | null | "unknown"> {
    const { api, namespace, name, log } = this.#options;
    const answer = await api.request({ method: "GET", path: objectPath(LEASE, namespace, name) });
    if (!answer.ok) {
      if (answer.error.code === "api_not_found") return null;
      log.debug(answer.error.message);
      return "unknown";
    }
    const parsed = schema.safeParse(answer.value);
    return parsed.success ? parsed.data : "unknown";
  }

  /** False when somebody else was faster, or the API server did not take it. @param holder "" gives it back. */
  async #write(found: Found | null, holder: string): Promise<boolean> {
    const { api, clock, namespace, name, identity, log } = this.#options;
    const now = new Date(clock.wallMs()).toISOString().replace("Z", "000Z");
    const before = found?.spec ?? null;
    const renews = before?.holderIdentity === identity;
    const body = {
      apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name, namespace, ...(found === null ? {} : { resourceVersion: found.metadata.resourceVersion }) },
      spec: {
        holderIdentity: holder, leaseDurationSeconds: LEASE_MS / 1000, renewTime: now,
        acquireTime: renews ? (before.acquireTime ?? now) : now, leaseTransitions: (before?.leaseTransitions ?? 0) + (renews ? 0 : 1),
      },
    };
    const answer = await api.request(found === null ? { method: "POST", path: collectionPath(LEASE, namespace), body } : { method: "PUT", path: objectPath(LEASE, namespace, name), body });
    if (!answer.ok && answer.error.code !== "api_conflict") log.warn(answer.error.message);
    return answer.ok;
  }

  #set(holds: boolean): void {
    if (!holds) this.#cancelDeadline();
    if (this.#holds === holds) return;
    this.#holds = holds;
    this.#options.log.info(holds ? "this replica writes" : "this replica no longer writes", { lease: `${this.#options.namespace}/${this.#options.name}` });
    this.#options.onChange(holds);
  }
}
