// The external authoriser of both proxies, over HTTP and over gRPC. It says what the request asks for, and keeps what it was asked:
//
//   x-authz: deny          refused with 401, a body and headers     x-authz: break   an answer that is an error
//   x-authz: change        allowed; headers set, added, removed     x-authz: silent  no answer
//
// Anything else is allowed, and the server is told who it was.

import { createServer, type Server } from "node:http";
import { authorizerService, type DecisionService, headerOption } from "../kit/decision-services.ts";
import { ConnectError, Code } from "@connectrpc/connect";
import type { CheckRequest } from "../../src/wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";
import { type Arrival, bodyOf, plainFields } from "./servers.ts";

export const AUTHORIZER = { address: "198.18.7.4", httpPort: 9000, grpcPort: 9001 };

export class Authorizer implements AsyncDisposable {
  readonly #http: Server;
  #grpc: DecisionService<CheckRequest> | null = null;
  readonly #tell: (arrival: Arrival) => void;

  /** @param tell of each question. */
  constructor(tell: (arrival: Arrival) => void) {
    this.#tell = tell;
    this.#http = createServer(async (request, response) => {
      const body = await bodyOf(request) ?? "";
      tell({ server: "authorizer", method: request.method!, target: request.url!, headers: plainFields(request.headers), body });
      switch (request.headers["x-authz"]) {
        case "silent": return;
        case "break": return void response.writeHead(500, { "x-why": "broken" }).end("broken");
        case "deny": return void response.writeHead(401, { "x-why": "denied", "www-authenticate": "Basic realm=\"here\"", "x-private": "1" }).end("denied by the authoriser");
        default: return void response.writeHead(200, { "x-user": "ann", "x-role": "admin", "x-private": "1" }).end();
      }
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#http.listen(AUTHORIZER.httpPort, AUTHORIZER.address, resolve));
    this.#grpc = await authorizerService((question) => {
      const http = question.attributes!.request!.http!;
      this.#tell({ server: "authorizer", method: http.method, target: http.path, headers: http.headers, body: http.body || Buffer.from(http.rawBody).toString("latin1") });
      switch (http.headers["x-authz"]) {
        case "silent": return new Promise(() => {});
        case "break": throw new ConnectError("broken", Code.Internal);
        case "deny": return { status: { code: 16 }, httpResponse: { case: "deniedResponse", value: { status: { code: 401 }, headers: [headerOption("x-why", "denied"), headerOption("www-authenticate", "Basic realm=\"here\"")], body: "denied by the authoriser" } } };
        case "change": return { status: { code: 0 }, httpResponse: { case: "okResponse", value: { headers: [headerOption("x-set", "ours"), headerOption("x-add", "more", true)], headersToRemove: ["x-remove"], responseHeadersToAdd: [headerOption("x-seen", "yes")] } } };
        default: return { status: { code: 0 }, httpResponse: { case: "okResponse", value: { headers: [headerOption("x-user", "ann")] } } };
      }
    }, { host: AUTHORIZER.address, port: AUTHORIZER.grpcPort });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#http.closeAllConnections();
    this.#http.close();
    await this.#grpc?.[Symbol.asyncDispose]();
  }
}
