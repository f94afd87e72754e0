import { expect, test } from "bun:test";
import { hmacSigner } from "./session-signer.ts";

// RFC 4231, test case 2 has a key of four bytes; test case 6 one of 131: https://www.rfc-editor.org/rfc/rfc4231#section-4.7
test("HMAC-SHA256, RFC 4231 test case 6", () => {
  const signer = hmacSigner(new Uint8Array(131).fill(0xaa));
  expect(Buffer.from(signer.sign("Test Using Larger Than Block-Size Key - Hash Key First"), "base64url").toString("hex"))
    .toBe("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
});
test("a short key is refused", () => expect(() => hmacSigner(new Uint8Array(31))).toThrow("32 bytes or more, got 31"));
