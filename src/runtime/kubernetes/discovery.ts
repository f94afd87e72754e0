// Whether an API server has a kind at all, by its own list of what it serves. A 404 alone says nothing: a proxy in front, a server that is
// starting or one whose extension is away answers so too.

import { z } from "zod";
import { RETRY_NEVER } from "../../core/fault.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { Api, ApiFault } from "./api.ts";
import type { ResourceType } from "./api-path.ts";

const GROUPS = "/apis";
const groupsSchema = z.object({ groups: z.array(z.object({ name: z.string(), versions: z.array(z.object({ version: z.string() })) })) });
const resourcesSchema = z.object({ resources: z.array(z.object({ name: z.string() })) });

/** @returns whether any of `types` is among what it serves; the error when it does not say. Core kinds are always served. */
export async function isServed(api: Api, types: readonly ResourceType[], signal: AbortSignal): Promise<Result<boolean, ApiFault>> {
  if (types.some(({ group }) => group === "")) return ok(true);
  const groups = await ask(api, GROUPS, groupsSchema, signal);
  if (!groups.ok) return groups;
  for (const { group, version, plural } of types) {
    if (!groups.value.groups.some(({ name, versions }) => name === group && versions.some((one) => one.version === version))) continue;
    const resources = await ask(api, `${GROUPS}/${group}/${version}`, resourcesSchema, signal);
    if (!resources.ok) return resources;
    if (resources.value.resources.some(({ name }) => name === plural)) return ok(true);
  }
  return ok(false);
}

async function ask<T>(api: Api, path: string, schema: z.ZodType<T>, signal: AbortSignal): Promise<Result<T, ApiFault>> {
  const answer = await api.request({ method: "GET", path, signal });
  if (!answer.ok) return answer;
  const parsed = schema.safeParse(answer.value);
  if (parsed.success) return ok(parsed.data);
  return err({ code: "api_malformed", status: 200, message: `GET ${path}: the answer is no list of what is served: ${z.prettifyError(parsed.error)}`, blame: "peer", dies: "nothing", retry: RETRY_NEVER });
}
