// Text from a configuration or a token as it stands on the wire: UTF-8, one char per byte, which is how the engines hand text over.

const utf8 = new TextEncoder();

export function wireText(text: string): string {
  if (!/[^\x00-\x7f]/.test(text)) return text;
  let out = "";
  for (const byte of utf8.encode(text)) out += String.fromCharCode(byte);
  return out;
}
