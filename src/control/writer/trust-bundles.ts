// The roots of the mesh in every namespace, where Istio's agents and gateways look for them: ConfigMap `istio-ca-root-cert`.

import { type Api, APPLY_PATCH } from "../../runtime/kubernetes/api.ts";
import { objectPath, type ResourceType } from "../../runtime/kubernetes/api-path.ts";
import type { WriteQueue } from "./write-queue.ts";

export const BUNDLE_NAME = "istio-ca-root-cert";
const BUNDLE_KEY = "root-cert.pem";
const CONFIG_MAP: ResourceType = { group: "", version: "v1", plural: "configmaps", kind: "ConfigMap", namespaced: true };
/** Kubernetes' own: no pod of the mesh lives there, and Istio leaves them out too. */
const LEFT_OUT: readonly string[] = ["kube-system", "kube-public", "kube-node-lease"];

export interface TrustBundlesOptions {
  readonly api: Api;
  readonly queue: WriteQueue;
  /** PEM, as it is now. */
  readonly bundle: () => string;
}

export class TrustBundles {
  readonly #options: TrustBundlesOptions;
  readonly #namespaces = new Set<string>();
  /** What is there, by namespace; another object each time that it is told of. */
  readonly #found = new Map<string, { readonly bundle: string }>();
  #writes = false;
  /** What is there is known: before, everything would be written once more. */
  #synced = false;

  constructor(options: TrustBundlesOptions) {
    this.#options = options;
  }

  /** Only the replica that holds the Lease writes. */
  setWriting(writes: boolean): void {
    this.#writes = writes;
    this.check();
  }

  setSynced(): void {
    this.#synced = true;
    this.check();
  }

  setNamespace(name: string, there: boolean): void {
    if (LEFT_OUT.includes(name)) return;
    if (there) this.#namespaces.add(name);
    else this.#namespaces.delete(name);
    if (there) this.#check(name);
    else this.#found.delete(name);
  }

  /** A ConfigMap of that name as the API has it; null when it is gone. */
  setFound(namespace: string, object: Readonly<Record<string, unknown>> | null): void {
    const data: unknown = object?.["data"];
    const text: unknown = data !== null && typeof data === "object" ? Reflect.get(data, BUNDLE_KEY) : undefined;
    if (typeof text === "string") this.#found.set(namespace, { bundle: text });
    else this.#found.delete(namespace);
    this.#check(namespace);
  }

  /** Looks at all namespaces: the roots have changed. */
  check(): void {
    for (const namespace of this.#namespaces) this.#check(namespace);
  }

  #check(namespace: string): void {
    if (!this.#writes || !this.#synced || !this.#namespaces.has(namespace) || this.#found.get(namespace)?.bundle === this.#options.bundle()) return;
    this.#options.queue.put(`bundle ${namespace}`, async () => {
      const bundle = this.#options.bundle();
      const before = this.#found.get(namespace);
      if (!this.#writes || !this.#namespaces.has(namespace) || before?.bundle === bundle) return null;
      const answer = await this.#options.api.request({
        method: "PATCH", path: objectPath(CONFIG_MAP, namespace, BUNDLE_NAME), query: { fieldManager: "weft", force: "true" }, contentType: APPLY_PATCH,
        body: { apiVersion: "v1", kind: "ConfigMap", metadata: { name: BUNDLE_NAME, namespace, labels: { "istio.io/config": "true" } }, data: { [BUNDLE_KEY]: bundle } },
      });
      // The watch brings the same; until then nothing is written twice. What it has brought meanwhile may be newer than the answer.
      if (answer.ok && this.#found.get(namespace) === before) this.#found.set(namespace, { bundle });
      // A namespace that is being deleted takes nothing new.
      return answer.ok || answer.error.status === 403 || answer.error.status === 404 ? null : answer.error;
    });
  }
}
