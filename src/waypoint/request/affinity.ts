// What ties a request to one of the endpoints: the session that the client was given, or the hash of something in the request; and what the
// client is told so that it says the same next time.

import type { ForwardPlan, PlannedSession } from "../../policy/http/plan.ts";
import { readSession, sessionHeader } from "../../policy/http/session.ts";
import { type HashCookie, hashCookieText, hashOfRequest } from "../../policy/upstream/balancers/hash-key.ts";
import { ViewFacts } from "../../policy/upstream/view-facts.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { RequestHead } from "./request-head.ts";
import type { RequestHost } from "./request-host.ts";

type AffinityHost = Pick<RequestHost, "random" | "wallMs" | "sessionSigner">;

export class Affinity {
  readonly #session: PlannedSession | null;
  /** Of the request's key, for balancing that asks for one; else 0. */
  readonly hash: number;
  /** Made for a request that has no key yet. */
  readonly #cookie: HashCookie | null;

  constructor(session: PlannedSession | null, hash: number, cookie: HashCookie | null) {
    this.#session = session;
    this.hash = hash;
    this.#cookie = cookie;
  }

  /** Key of the endpoint that the client's session is with; null for none. */
  get endpoint(): string | null {
    return this.#session?.current?.endpoint ?? null;
  }

  /** Tells the client. @param endpoint key of the one that answers. */
  tell(fields: HttpFields, endpoint: string, head: RequestHead, wallMs: () => number): void {
    const session = this.#session;
    const secure = head.scheme === "https";
    if (session !== null) {
      const { scope, backend, current } = session;
      const header = sessionHeader(scope, { backend, endpoint, current, nowMs: wallMs(), secure });
      if (header !== null) fields.append(header.name, header.value);
    }
    if (this.#cookie !== null) fields.append("set-cookie", hashCookieText(this.#cookie, secure));
  }
}

const NO_AFFINITY = new Affinity(null, 0, null);

/** @param head with the fields that the server will see. */
export function affinityOf({ session: ofRule }: ForwardPlan, cluster: Cluster, head: RequestHead, host: AffinityHost): Affinity {
  const session = ofRule ?? serviceSession(cluster, head, host);
  const { balancing } = cluster.settings;
  if (balancing.kind !== "ringHash" && balancing.kind !== "maglev") return session === null ? NO_AFFINITY : new Affinity(session, 0, null);
  const hashed = hashOfRequest(balancing.key, new ViewFacts(head, head.token?.payload ?? null), host.random);
  return new Affinity(session, hashed.hash, hashed.kind === "newCookie" ? hashed.cookie : null);
}

/** A session that the service itself asks for, where the rule has none: by endpoint, whichever rule led here. */
function serviceSession({ name, settings: { sessionPersistence: persistence, provenance } }: Cluster, head: RequestHead, { sessionSigner: signer, wallMs }: AffinityHost): PlannedSession | null {
  if (persistence === null || signer === null) return null;
  const from = provenance["sessionPersistence"];
  const scope = { persistence, owner: `${name} ${from === undefined ? "" : `${from.kind}/${from.namespace}/${from.name}`}`, signer };
  return { scope, backend: name, current: readSession(head.fields, scope, wallMs()) };
}
