// The head of a request as decisions see it: routing, access, balancing. Nothing is copied; strings are cut out when they are asked for.

import type { IpAddress } from "../../core/ip.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import type { RequestFacts as AccessFacts } from "../../policy/http/request-rules.ts";
import type { RequestSource, RequestView } from "../../policy/http/request.ts";
import type { RequestToken } from "../../policy/http/tokens.ts";
import type { Client } from "../downstream/client.ts";

export class RequestHead implements RequestView, AccessFacts {
  readonly method: string;
  readonly path: string;
  /** As it came; null when that is the same. */
  readonly pathReceived: string | null;
  /** Tokens that are not passed on are taken out of it. */
  query: string;
  readonly host: string;
  readonly authorityPort: number | null;
  readonly scheme: "http" | "https";
  readonly fields: HttpFields;
  readonly source: RequestSource;
  readonly client: Client;
  token: RequestToken | null = null;

  constructor(request: HttpRequest, client: Client) {
    const { target } = request;
    this.method = request.method;
    this.path = target.path;
    this.pathReceived = target.pathReceived;
    this.query = target.query;
    this.host = target.host?.name ?? "";
    this.authorityPort = target.host?.port ?? null;
    this.scheme = target.scheme ?? "http";
    this.fields = request.fields;
    this.source = client.source;
    this.client = client;
  }

  // As access policies see it.

  get request(): RequestView {
    return this;
  }

  get principals(): readonly string[] {
    return this.client.facts.principals;
  }

  get namespace(): string | null {
    return this.client.facts.namespace;
  }

  get serviceAccount(): string | null {
    return this.client.facts.serviceAccount;
  }

  get sourceIp(): IpAddress {
    return this.client.facts.sourceIp;
  }

  get destinationIp(): IpAddress {
    return this.client.facts.destinationIp;
  }

  get destinationPort(): number {
    return this.client.facts.destinationPort;
  }

  /** No proxy before us is trusted to say whom it speaks for. */
  get remoteIp(): IpAddress {
    return this.client.facts.sourceIp;
  }

  get sni(): string | null {
    return this.client.sni;
  }
}
