// The mesh as an object of the Gateway API (XMesh): made where there is none of ours, and told that it is accepted and what it can do.
// Those of other controllers are left alone.

import { type Api, MERGE_PATCH } from "../../runtime/kubernetes/api.ts";
import { collectionPath, objectPath, type ResourceType } from "../../runtime/kubernetes/api-path.ts";
import { isJson, type Json, sameJson } from "../json.ts";
import type { WriteQueue } from "./write-queue.ts";

export const X_MESH: ResourceType = { group: "gateway.networking.x-k8s.io", version: "v1alpha1", plural: "xmeshes", kind: "XMesh", namespaced: false };
export const MESH_CONTROLLER = "weft.dev/mesh";
const NAME = "weft";

/** Names of the Gateway API's conformance suite, sorted, as the specification wants them. docs/routing.md tells what each is. */
export const SUPPORTED_FEATURES: readonly string[] = [
  "GRPCRoute", "GRPCRouteNamedRouteRule",
  "HTTPRoute", "HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode", "HTTPRouteBackendProtocolH2C", "HTTPRouteBackendProtocolWebSocket", "HTTPRouteBackendRequestHeaderModification",
  "HTTPRouteBackendTimeout", "HTTPRouteCORS", "HTTPRouteHostRewrite", "HTTPRouteMethodMatching", "HTTPRouteNamedRouteRule", "HTTPRouteParentRefPort", "HTTPRoutePathRedirect", "HTTPRoutePathRewrite", "HTTPRoutePortRedirect",
  "HTTPRouteQueryParamMatching", "HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors", "HTTPRouteRequestPercentageMirror", "HTTPRouteRequestTimeout", "HTTPRouteResponseHeaderModification", "HTTPRouteSchemeRedirect",
  "Mesh", "MeshClusterIPMatching", "MeshConsumerRoute", "MeshHTTPRouteBackendRequestHeaderModification", "MeshHTTPRouteNamedRouteRule", "MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteRedirectPath", "MeshHTTPRouteRedirectPort",
  "MeshHTTPRouteRewritePath", "MeshHTTPRouteSchemeRedirect",
];

export interface MeshObjectOptions {
  readonly api: Api;
  readonly queue: WriteQueue;
  /** RFC 3339. */
  readonly now: () => string;
}

export class MeshObject {
  readonly #options: MeshObjectOptions;
  readonly #found = new Map<string, Json>();
  #writes = false;
  #synced = false;

  constructor(options: MeshObjectOptions) {
    this.#options = options;
  }

  setWriting(writes: boolean): void {
    this.#writes = writes;
    this.#check();
  }

  setSynced(): void {
    this.#synced = true;
    this.#check();
  }

  setFound(name: string, object: Json | null): void {
    if (object === null) this.#found.delete(name);
    else this.#found.set(name, object);
    this.#check();
  }

  #check(): void {
    if (!this.#writes || !this.#synced) return;
    const ours = [...this.#found].filter(([, object]) => isJson(object["spec"]) && object["spec"]["controllerName"] === MESH_CONTROLLER);
    if (ours.length === 0 && !this.#found.has(NAME)) this.#options.queue.put("mesh", () => this.#create());
    for (const [name, object] of ours) {
      const status = meshStatus(object, this.#options.now());
      if (status === null) continue;
      this.#options.queue.put(`mesh ${name}`, async () => {
        const now = this.#found.get(name);
        const wanted = now === undefined || !this.#writes ? null : meshStatus(now, this.#options.now());
        if (now === undefined || wanted === null) return null;
        const version = isJson(now["metadata"]) ? now["metadata"]["resourceVersion"] : undefined;
        const answer = await this.#options.api.request({ method: "PATCH", path: objectPath(X_MESH, "", name, "status"), query: { fieldManager: "weft" }, contentType: MERGE_PATCH, body: { metadata: { resourceVersion: version }, status: wanted } });
        return answer.ok || answer.error.code === "api_not_found" ? null : answer.error;
      });
    }
  }

  async #create() {
    if (!this.#writes || this.#found.has(NAME)) return null;
    const answer = await this.#options.api.request({
      method: "POST", path: collectionPath(X_MESH, null), query: { fieldManager: "weft" },
      body: { apiVersion: `${X_MESH.group}/${X_MESH.version}`, kind: X_MESH.kind, metadata: { name: NAME }, spec: { controllerName: MESH_CONTROLLER, description: "The mesh of this cluster" } },
    });
    // The kind is not installed, or another replica was faster.
    return answer.ok || answer.error.code === "api_not_found" || answer.error.code === "api_conflict" ? null : answer.error;
  }
}

/** The status it should have; null when it has. */
function meshStatus(object: Json, now: string): Json | null {
  const [metadata, spec, status] = [object["metadata"], object["spec"], object["status"]];
  const generation = isJson(metadata) && typeof metadata["generation"] === "number" ? metadata["generation"] : 0;
  const parameters = isJson(spec) ? spec["parametersRef"] : undefined;
  const accepted = parameters === undefined;
  const found = isJson(status) && Array.isArray(status["conditions"]) ? status["conditions"].filter(isJson) : [];
  const before = found.find((condition) => condition["type"] === "Accepted");
  const holds = accepted ? "True" : "False";
  const condition = {
    type: "Accepted", status: holds, reason: accepted ? "Accepted" : "InvalidParameters", message: accepted ? "weft serves this mesh" : "found parametersRef; the mesh takes no parameters", observedGeneration: generation,
    lastTransitionTime: before?.["status"] === holds && typeof before["lastTransitionTime"] === "string" ? before["lastTransitionTime"] : now,
  };
  const wanted = { conditions: [...found.filter((one) => one["type"] !== "Accepted"), condition], supportedFeatures: SUPPORTED_FEATURES.map((name) => ({ name })) };
  const same = isJson(status) && sameJson(status["conditions"], wanted.conditions) && sameJson(status["supportedFeatures"], wanted.supportedFeatures);
  return same ? null : wanted;
}
