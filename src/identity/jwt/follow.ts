// A GET that follows redirects as far as an issuer's documents need: few, never from https to http, and never from an address that the
// operator wrote to a private one that a stranger chose.

import { parseIp } from "../../core/ip.ts";
import { err, type Result } from "../../core/result.ts";
import { isPrivateAddress } from "../../policy/ports.ts";
import type { FetchPort, IssuerRequest, IssuerResponse } from "./fetch-port.ts";
import { REDIRECTS_MAX } from "./limits.ts";

export async function getFollowing(fetch: FetchPort, request: Omit<IssuerRequest, "method" | "body" | "publicOnly">): Promise<Result<IssuerResponse, string>> {
  const first = readUrl(request.url);
  if (first === null) return err(`${request.url} is no http or https URL`);
  let url = first;
  for (let hops = 0; hops <= REDIRECTS_MAX; hops++) {
    const publicOnly = url.host !== first.host;
    const answer = await fetch({ ...request, url: url.href, method: "GET", body: null, publicOnly });
    if (!answer.ok || !isRedirect(answer.value.status)) return answer;
    const { location } = answer.value;
    const next = location === null ? null : readUrl(location, url);
    if (next === null) return err(`${url.href} answered ${answer.value.status} with the location ${JSON.stringify(location)}, which is no http or https URL`);
    if (url.protocol === "https:" && next.protocol === "http:") return err(`${url.href} redirects to ${next.href}, from https to http: refused`);
    const ip = parseIp(next.hostname.replace(/^\[|\]$/g, ""));
    if (next.host !== first.host && (ip !== null && isPrivateAddress(ip) || next.hostname === "localhost" || next.hostname.endsWith(".localhost"))) {
      return err(`${url.href} redirects to the private address ${next.host}: refused`);
    }
    url = next;
  }
  return err(`${request.url} redirects more than ${REDIRECTS_MAX} times`);
}

function readUrl(text: string, base?: URL): URL | null {
  const url = URL.parse(text, base?.href);
  if (url === null || url.protocol !== "http:" && url.protocol !== "https:") return null;
  // Credentials in a URL end up in logs.
  return url.username === "" && url.password === "" ? url : null;
}

const isRedirect = (status: number): boolean => status >= 301 && status <= 308 && status !== 304 && status !== 305 && status !== 306;
