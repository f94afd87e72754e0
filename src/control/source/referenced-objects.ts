// ConfigMaps and Secrets that resources name, read one by one: a control plane need not see any other. Each is read when it is first named,
// and again every LOOK_MS: those who rotate keys wait half a minute, and nobody needs a watch for each.

import type { Timers } from "../../net/timers.ts";
import type { TextReference } from "../../resources/l7/world.ts";
import { metadataText } from "../../resources/object-head.ts";
import { identityKey } from "../../resources/resource.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { Api } from "../../runtime/kubernetes/api.ts";
import { objectPath } from "../../runtime/kubernetes/api-path.ts";

export const LOOK_MS = 30_000;
/** A state waits this long for something that is named for the first time; without it what names it is refused, which is safe. */
export const WAIT_MS = 2_000;
/** Named objects of one cluster; more are refused, as if they were not there. */
const REFERENCES_MAX = 5_000;
const AT_ONCE_MAX = 8;

const PLURALS: Readonly<Record<TextReference["kind"], string>> = { ConfigMap: "configmaps", Secret: "secrets" };

export interface ReferencedObjectsOptions {
  readonly api: Api;
  readonly timers: Timers;
  readonly log: Logger;
  readonly upsert: (identity: TextReference, object: Readonly<Record<string, unknown>>) => void;
  readonly remove: (identity: TextReference) => void;
  /** Something that was waited for is there, or will not be waited for any longer. */
  readonly settled: () => void;
}

interface Reference {
  readonly identity: TextReference;
  /** resourceVersion; "" while it is not there. */
  version: string;
  awaited: boolean;
}

export class ReferencedObjects {
  readonly #options: ReferencedObjectsOptions;
  readonly #references = new Map<string, Reference>();
  readonly #queue: Reference[] = [];
  #reading = 0;
  #cancel: () => void = () => {};
  #stopped = false;
  #told = "";

  constructor(options: ReferencedObjectsOptions) {
    this.#options = options;
  }

  /** Something that is named is still to be looked at for the first time. */
  get waiting(): boolean {
    for (const { awaited } of this.#references.values()) if (awaited) return true;
    return false;
  }

  /** What is named now; the others are forgotten. */
  want(identities: Iterable<TextReference>): void {
    const wanted = new Map<string, TextReference>();
    for (const identity of identities) if (wanted.size < REFERENCES_MAX) wanted.set(identityKey(identity), identity);
    for (const [key, { identity, version }] of this.#references) {
      if (wanted.has(key)) continue;
      this.#references.delete(key);
      if (version !== "") this.#options.remove(identity);
    }
    const fresh: Reference[] = [];
    for (const [key, identity] of wanted) {
      if (this.#references.has(key)) continue;
      const reference: Reference = { identity, version: "", awaited: true };
      this.#references.set(key, reference);
      fresh.push(reference);
    }
    if (fresh.length === 0) return;
    this.#options.timers.after(WAIT_MS, () => this.#giveUp(fresh));
    this.#read(fresh);
    this.#cancel();
    this.#cancel = this.#options.timers.after(LOOK_MS, () => this.#look());
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  #look(): void {
    this.#read([...this.#references.values()]);
    this.#cancel = this.#options.timers.after(LOOK_MS, () => this.#look());
  }

  #giveUp(references: readonly Reference[]): void {
    if (!references.some(({ awaited }) => awaited)) return;
    for (const reference of references) reference.awaited = false;
    this.#options.settled();
  }

  #read(references: readonly Reference[]): void {
    for (const reference of references) if (!this.#queue.includes(reference)) this.#queue.push(reference);
    while (this.#reading < AT_ONCE_MAX && this.#queue.length > 0 && !this.#stopped) {
      this.#reading++;
      void this.#readOne(this.#queue.shift()!).then(() => {
        this.#reading--;
        this.#read([]);
      });
    }
  }

  async #readOne(reference: Reference): Promise<void> {
    const { api, log, upsert, remove, settled } = this.#options;
    const { kind, namespace, name } = reference.identity;
    const answer = await api.request({ method: "GET", path: objectPath({ group: "", version: "v1", plural: PLURALS[kind], kind, namespaced: true }, namespace, name) });
    if (this.#stopped || this.#references.get(identityKey(reference.identity)) !== reference) return;
    const first = reference.awaited;
    reference.awaited = false;
    if (answer.ok && answer.value !== null && typeof answer.value === "object") {
      const object: Record<string, unknown> = { ...answer.value };
      const version = metadataText(object, "resourceVersion");
      if (version !== reference.version) {
        reference.version = version;
        upsert(reference.identity, object);
      }
    } else if (!answer.ok && answer.error.code === "api_not_found") {
      if (reference.version !== "") remove(reference.identity);
      reference.version = "";
    } else if (!answer.ok && answer.error.message !== this.#told) {
      // As it was stays.
      this.#told = answer.error.message;
      log.warn(answer.error.message);
    }
    if (first && !this.waiting) settled();
  }
}
