// Every case of h2spec against the engine as a server.

import { DEFAULT_SETTINGS, FRAME_BYTES_MIN, type LocalSettings } from "../../src/wire/http2/limits.ts";
import { testUnless } from "../kit/skip.ts";
import { echoHandler } from "./echo-responder.ts";
import { CASES_TIMEOUT_MS, expectAll, needsH2spec, runH2spec, type Verdict } from "./h2spec-program.ts";
import { listenHttp2 } from "./http2-socket.ts";

async function engineWith(settings: LocalSettings): Promise<Verdict> {
  const server = listenHttp2({ settings }, echoHandler);
  try {
    return await runH2spec(server.port);
  } finally {
    server.stop();
  }
}

// h2spec takes the maximum frame size to be the RFC's initial 16 KiB in case http2/4.2/3 ("a HEADERS frame that exceeds it" has 20 KB).
testUnless(needsH2spec)(
  "h2spec: every case passes, strict ones too, with the smallest frame size",
  async () => {
    const verdict = await engineWith({ ...DEFAULT_SETTINGS, maxFrameBytes: FRAME_BYTES_MIN });
    expectAll(verdict);
  },
  CASES_TIMEOUT_MS,
);

testUnless(needsH2spec)(
  "h2spec: with the mesh's own settings (1 MiB frames, extended CONNECT) every case but that one passes",
  async () => {
    const verdict = await engineWith({ ...DEFAULT_SETTINGS, enableConnectProtocol: true });
    expectAll(verdict, ["Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE"]);
  },
  CASES_TIMEOUT_MS,
);
