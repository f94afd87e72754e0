// What an issuer says of itself: OpenID Connect Discovery 1.0. The document must be the issuer's own, and what it names no less protected
// than the document was.

import { err, ok, type Result } from "../../core/result.ts";
import type { FetchPort } from "./fetch-port.ts";
import { getFollowing } from "./follow.ts";
import { isRecord } from "./key-set.ts";
import { DISCOVERY_BYTES_MAX } from "./limits.ts";

export class Discovered {
  readonly #url: string;
  readonly #members: Readonly<Record<string, unknown>>;

  constructor(url: string, members: Readonly<Record<string, unknown>>) {
    this.#url = url;
    this.#members = members;
  }

  /** An address that has to be there. */
  endpoint(name: string): Result<string, string> {
    const value = this.#members[name];
    if (typeof value !== "string") return err(`${this.#url} has no ${name}`);
    const url = URL.parse(value);
    if (url === null || url.protocol !== "https:" && url.protocol !== "http:" || url.username !== "" || url.password !== "") return err(`${this.#url} names as ${name} ${JSON.stringify(value)}, which is no http or https URL: refused`);
    if (this.#url.startsWith("https:") && url.protocol !== "https:") return err(`${this.#url} names as ${name} ${value}, from https to something else: refused`);
    return ok(value);
  }

  /** One that need not be; null then. */
  optionalEndpoint(name: string): Result<string | null, string> {
    return this.#members[name] === undefined || this.#members[name] === null ? ok(null) : this.endpoint(name);
  }

  /** Null when there is no such list. */
  list(name: string): readonly unknown[] | null {
    const value = this.#members[name];
    return Array.isArray(value) ? value : null;
  }

  isTrue(name: string): boolean {
    return this.#members[name] === true;
  }
}

export async function discover(fetch: FetchPort, { issuer, timeoutMs, signal }: { readonly issuer: string; readonly timeoutMs: number; readonly signal: AbortSignal }): Promise<Result<Discovered, string>> {
  const url = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const answer = await getFollowing(fetch, { url, headers: { accept: "application/json" }, timeoutMs, bodyBytesMax: DISCOVERY_BYTES_MAX, signal });
  if (!answer.ok) return answer;
  if (answer.value.status !== 200) return err(`${url} answered ${answer.value.status}, wanted 200`);
  let document: unknown;
  try {
    document = JSON.parse(answer.value.body);
  } catch {
    return err(`${url} is no JSON`);
  }
  if (!isRecord(document)) return err(`${url} is no JSON object`);
  if (document["issuer"] !== issuer) return err(`${url} speaks for the issuer ${JSON.stringify(document["issuer"])}, wanted ${JSON.stringify(issuer)}`);
  return ok(new Discovered(url, document));
}
