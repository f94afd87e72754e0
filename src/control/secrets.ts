// Secrets of one namespace, as texts.

import { z } from "zod";
import { err, ok, type Result } from "../core/result.ts";
import type { Api } from "../runtime/kubernetes/api.ts";
import { objectPath, collectionPath, type ResourceType } from "../runtime/kubernetes/api-path.ts";

const SECRET: ResourceType = { group: "", version: "v1", plural: "secrets", kind: "Secret", namespaced: true };
const schema = z.object({ metadata: z.object({ resourceVersion: z.string() }), data: z.record(z.string(), z.string()).nullish() });

export interface SecretTexts {
  readonly data: Readonly<Record<string, string>>;
  readonly resourceVersion: string;
}

export class Secrets {
  readonly #api: Api;
  readonly #namespace: string;

  constructor(api: Api, namespace: string) {
    this.#api = api;
    this.#namespace = namespace;
  }

  /** Null when there is none. */
  async read(name: string): Promise<Result<SecretTexts | null, string>> {
    const answer = await this.#api.request({ method: "GET", path: objectPath(SECRET, this.#namespace, name) });
    if (!answer.ok) return answer.error.code === "api_not_found" ? ok(null) : err(answer.error.message);
    const parsed = schema.safeParse(answer.value);
    if (!parsed.success) return err(`Secret ${this.#namespace}/${name} cannot be read: ${z.prettifyError(parsed.error)}`);
    const data = Object.fromEntries(Object.entries(parsed.data.data ?? {}).map(([key, value]) => [key, Buffer.from(value, "base64").toString("utf8")]));
    return ok({ data, resourceVersion: parsed.data.metadata.resourceVersion });
  }

  async create(name: string, data: Readonly<Record<string, string>>): Promise<Result<"created" | "exists", string>> {
    const answer = await this.#api.request({ method: "POST", path: collectionPath(SECRET, this.#namespace), body: this.#object(name, data) });
    if (answer.ok) return ok("created");
    return answer.error.code === "api_conflict" ? ok("exists") : err(answer.error.message);
  }

  async replace(name: string, { data, resourceVersion }: SecretTexts): Promise<Result<"replaced" | "conflict", string>> {
    const answer = await this.#api.request({ method: "PUT", path: objectPath(SECRET, this.#namespace, name), body: this.#object(name, data, resourceVersion) });
    if (answer.ok) return ok("replaced");
    return answer.error.code === "api_conflict" || answer.error.code === "api_not_found" ? ok("conflict") : err(answer.error.message);
  }

  #object(name: string, data: Readonly<Record<string, string>>, resourceVersion?: string): Record<string, unknown> {
    return {
      apiVersion: "v1", kind: "Secret", type: "Opaque", metadata: { name, namespace: this.#namespace, labels: { "app.kubernetes.io/managed-by": "weft" }, ...(resourceVersion === undefined ? {} : { resourceVersion }) },
      data: Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")])),
    };
  }
}
