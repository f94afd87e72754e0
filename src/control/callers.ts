// Who is at the door of the control plane: pods, by the tokens that Kubernetes projects into them. The API server judges every token
// (TokenReview); what its owner may ask for follows from where its pod runs.

import { createHash } from "node:crypto";
import { z } from "zod";
import { nameHalf, type NamespacedName } from "../core/brand.ts";
import type { Clock } from "../core/ports.ts";
import { err, ok, type Result } from "../core/result.ts";
import { parseSpiffeId, type SpiffeId, type TrustDomain } from "../core/spiffe.ts";
import { GATEWAY_NAME } from "../resources/annotations.ts";
import type { Pod } from "../resources/kinds/pod.ts";
import type { Authenticator, ClientView, Credentials, XdsCaller } from "../xds/serving.ts";
import type { Api } from "../runtime/kubernetes/api.ts";

const TOKEN_CHARS_MAX = 8192;
/** A token is good for an hour and reviewed again after this: a deleted pod's is refused by then. */
export const REVIEW_KEPT_MS = 60_000;
/**
 * While the API server cannot be asked, what it said of a token before is good for this long, and no longer than the token itself: agents that
 * start anew have their configuration and certificates. What is missed is that its pod has been deleted, of which nobody could hear.
 */
export const UNASKED_KEPT_MS = 3_600_000;
/** After it did not answer: those whom it judged before need not wait for it again. */
export const UNASKED_PAUSE_MS = 5_000;
/** Clocks differ: what looks as if it had expired less than this ago is the API server's to judge. */
export const CLOCK_SKEW_MS = 5 * 60_000;
/** A refused token costs the API server one question in this time. */
const REFUSAL_KEPT_MS = 10_000;
const REVIEWS_KEPT_MAX = 20_000;
/** An API server that has not answered by then: whoever asks is told so before he gives up by himself, which our agents do after 10 s. */
const REVIEW_MS = 7_000;
/** Questions to the API server at once; the others wait their turn. */
const REVIEWS_AT_ONCE_MAX = 16;
const WAITING_MAX = 1024;
const EXTRA_POD_NAME = "authentication.kubernetes.io/pod-name";
const EXTRA_POD_UID = "authentication.kubernetes.io/pod-uid";

const reviewSchema = z.object({
  status: z.object({
    authenticated: z.boolean().nullish(), error: z.string().nullish(), audiences: z.array(z.string()).nullish(),
    user: z.object({ username: z.string().nullish(), extra: z.record(z.string(), z.array(z.string())).nullish() }).nullish(),
  }),
});
const claimsSchema = z.object({ aud: z.union([z.string(), z.array(z.string())]), exp: z.number().optional() });

/** A service account, and the pod whose token it was. */
export interface ReviewedAccount {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** "" for a token that is bound to no pod. */
  readonly podName: string;
  readonly podUid: string;
}

/** What is known of the pods of the cluster. */
export interface KnownPods {
  podByUid(uid: string): Pod | null;
  runsOn(node: string, namespace: string, serviceAccount: string): boolean;
}

export interface CallersOptions {
  readonly api: Api;
  readonly clock: Clock;
  /** A token for anybody else is not for us. */
  readonly audience: string;
  readonly trustDomain: TrustDomain;
  /** The mesh's own: who is of it may ask about everybody's agents. */
  readonly namespace: string;
  /** `namespace/name` of the service accounts of node agents: they ask for the pods of their node. */
  readonly nodeAccounts: readonly string[];
  readonly pods: () => KnownPods;
}

interface Kept {
  readonly account: ReviewedAccount | null;
  readonly untilMs: number;
  /** Of an account: while the API server cannot be asked. */
  readonly unaskedUntilMs: number;
}

export class Callers implements Authenticator {
  readonly counters = { reviews: 0, failed: 0, refused: 0 };
  readonly #options: CallersOptions;
  readonly #kept = new Map<string, Kept>();
  readonly #underWay = new Map<string, Promise<ReviewedAccount | null>>();
  readonly #waiting: (() => void)[] = [];
  #asking = 0;
  /** Monotonic; until then the API server is taken for away. */
  #awayUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: CallersOptions) {
    this.#options = options;
  }

  /**
   * For the CA: who it is and which identities it may have; null for nobody.
   * @throws when the API server cannot be asked: that is no refusal.
   */
  async verify(token: string): Promise<{ readonly name: string; mayHave(id: SpiffeId): boolean } | null> {
    const account = await this.review(token);
    if (account === null) return null;
    return { name: describeAccount(account), mayHave: (id) => this.#mayHave(account, id) };
  }

  /**
   * For xDS: a node agent is told everything, a waypoint's pod what is its own.
   * @throws when the API server cannot be asked: that is no refusal.
   */
  async authenticate({ bearerToken }: Credentials): Promise<Result<XdsCaller, string>> {
    if (bearerToken === null) return err(`no bearer token was shown, wanted a service account's token for ${this.#options.audience}`);
    const account = await this.review(bearerToken);
    if (account === null) return err(`the bearer token is none of this cluster's for ${this.#options.audience}, or its pod is gone`);
    return ok({ name: describeAccount(account), refusal: (view) => this.#refusal(account, view), statusRefusal: () => this.#statusRefusal(account) });
  }

  /** @throws when the API server cannot be asked. */
  async review(token: string): Promise<ReviewedAccount | null> {
    const nowMs = this.#options.clock.monotonicMs();
    const expiresMs = this.#expiryOfOurs(token);
    if (expiresMs === null) {
      this.counters.refused++;
      return null;
    }
    const key = createHash("sha256").update(token).digest("base64");
    const kept = this.#kept.get(key);
    if (kept !== undefined && kept.untilMs > nowMs) return kept.account;
    const before = kept !== undefined && kept.account !== null && kept.unaskedUntilMs > nowMs && expiresMs > this.#options.clock.wallMs() ? kept.account : null;
    if (before !== null && nowMs < this.#awayUntilMs) return before;
    let asked = this.#underWay.get(key);
    if (asked === undefined) {
      asked = this.#inTurn(() => this.#ask(token)).finally(() => this.#underWay.delete(key));
      this.#underWay.set(key, asked);
    }
    let account: ReviewedAccount | null;
    try {
      account = await asked;
    } catch (cause) {
      if (before === null) throw cause;
      return before;
    }
    const judgedMs = this.#options.clock.monotonicMs();
    if (account === null) this.counters.refused++;
    if (this.#kept.size >= REVIEWS_KEPT_MAX) this.#kept.delete(this.#kept.keys().next().value!);
    this.#kept.delete(key);
    this.#kept.set(key, { account, untilMs: judgedMs + (account === null ? REFUSAL_KEPT_MS : REVIEW_KEPT_MS), unaskedUntilMs: judgedMs + UNASKED_KEPT_MS });
    return account;
  }

  /**
   * What cannot be a token for us costs the API server nothing. Says nothing of a token that may be one.
   * @returns when it expires, by the wall clock; null for one that is none, or has expired by every clock.
   */
  #expiryOfOurs(token: string): number | null {
    const parts = token.split(".");
    if (token.length > TOKEN_CHARS_MAX || parts.length !== 3) return null;
    try {
      const claims = claimsSchema.safeParse(JSON.parse(Buffer.from(parts[1]!, "base64url").toString("utf8")));
      if (!claims.success) return null;
      const { aud, exp = Number.POSITIVE_INFINITY } = claims.data;
      return (typeof aud === "string" ? [aud] : aud).includes(this.#options.audience) && exp * 1000 + CLOCK_SKEW_MS > this.#options.clock.wallMs() ? exp * 1000 : null;
    } catch {
      return null;
    }
  }

  async #inTurn<T>(run: () => Promise<T>): Promise<T> {
    if (this.#asking >= REVIEWS_AT_ONCE_MAX) {
      if (this.#waiting.length >= WAITING_MAX) throw new Error(`more than ${WAITING_MAX} tokens wait to be reviewed`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#asking++;
    try {
      return await run();
    } finally {
      this.#asking--;
      this.#waiting.shift()?.();
    }
  }

  async #ask(token: string): Promise<ReviewedAccount | null> {
    const { api, audience } = this.#options;
    this.counters.reviews++;
    const answer = await api.request({ method: "POST", path: "/apis/authentication.k8s.io/v1/tokenreviews", signal: AbortSignal.timeout(REVIEW_MS), body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", spec: { token, audiences: [audience] } } });
    if (!answer.ok) {
      this.counters.failed++;
      this.#awayUntilMs = this.#options.clock.monotonicMs() + UNASKED_PAUSE_MS;
      throw new Error(answer.error.message);
    }
    const review = reviewSchema.safeParse(answer.value);
    if (!review.success) throw new Error(`the API server's TokenReview cannot be read: ${z.prettifyError(review.error)}`);
    const { authenticated, audiences, user } = review.data.status;
    // An API server that knows no audiences answers without: then nobody has said that the token is for us.
    if (authenticated !== true || !(audiences ?? []).includes(audience)) return null;
    const match = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(user?.username ?? "");
    if (match === null) return null;
    return { namespace: match[1]!, serviceAccount: match[2]!, podName: user?.extra?.[EXTRA_POD_NAME]?.[0] ?? "", podUid: user?.extra?.[EXTRA_POD_UID]?.[0] ?? "" };
  }

  #mayHave(account: ReviewedAccount, id: SpiffeId): boolean {
    const wanted = parseSpiffeId(id);
    if (wanted === null || wanted.trustDomain !== this.#options.trustDomain) return false;
    if (wanted.namespace === account.namespace && wanted.serviceAccount === account.serviceAccount) return true;
    const node = this.#nodeOf(account);
    return node !== null && this.#options.pods().runsOn(node, wanted.namespace, wanted.serviceAccount);
  }

  /** The node whose agent this is; null for anybody else. */
  #nodeOf(account: ReviewedAccount): string | null {
    if (!this.#options.nodeAccounts.includes(`${account.namespace}/${account.serviceAccount}`)) return null;
    const pod = this.#podOf(account);
    return pod === null || pod.node === "" ? null : pod.node;
  }

  /** The pod whose token it is, if that is still there under the same account. */
  #podOf(account: ReviewedAccount): Pod | null {
    if (account.podUid === "") return null;
    const pod = this.#options.pods().podByUid(account.podUid);
    return pod !== null && pod.namespace === account.namespace && pod.serviceAccount === account.serviceAccount && pod.phase !== "ended" ? pod : null;
  }

  #statusRefusal(account: ReviewedAccount): string | null {
    const { namespace } = this.#options;
    return account.namespace === namespace ? null : `${describeAccount(account)} may not ask about the agents: wanted a service account of namespace ${namespace}`;
  }

  #refusal(account: ReviewedAccount, view: ClientView): string | null {
    const who = describeAccount(account);
    switch (view.kind) {
      case "node": {
        if (!this.#options.nodeAccounts.includes(`${account.namespace}/${account.serviceAccount}`)) return `${who} is no node agent: wanted one of the service accounts ${this.#options.nodeAccounts.join(", ")}`;
        const node = this.#nodeOf(account);
        if (node === null) return `${who}: its token is bound to no pod that is known here; a pod that has just begun is known within a moment`;
        return view.node === "" || view.node === node ? null : `${who} runs on ${node} and says that it is on ${view.node}`;
      }
      case "waypoint": {
        const pod = this.#podOf(account);
        if (pod === null) return `${who}: its token is bound to no pod that is known here; a pod that has just begun is known within a moment`;
        const own = `${pod.namespace}/${pod.labels[GATEWAY_NAME] ?? ""}`;
        return own === (view.gateway satisfies NamespacedName) ? null : `${who} is no instance of the waypoint ${view.gateway}: its pod has no label ${GATEWAY_NAME}=${nameHalf(view.gateway)}, or is in another namespace`;
      }
    }
  }
}

function describeAccount({ namespace, serviceAccount, podName }: ReviewedAccount): string {
  return podName === "" ? `${namespace}/${serviceAccount}` : `${namespace}/${serviceAccount} (${podName})`;
}
