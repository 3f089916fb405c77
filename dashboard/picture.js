// Reads the rendition as it lies in the archive, so that the server never decodes a picture.

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Source: PNG specification (ISO/IEC 15948) clauses 7.2, 9.2 and 11.2; 16-bit grey, not interlaced.
async function readPng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = [];
  let width = 0, height = 0;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "IHDR") {
      width = view.getUint32(at + 8);
      height = view.getUint32(at + 12);
      const [depth, type, , , interlace] = bytes.subarray(at + 16, at + 21);
      if (depth !== 16 || type !== 0 || interlace) throw new Error("not 16-bit grey");
    } else if (kind === "IDAT") parts.push(bytes.slice(at + 8, at + 8 + length));
    else if (kind === "IEND") break;
    at += 12 + length;
  }
  const raw = await inflate(parts);
  const stride = width * 2;
  if (raw.length !== height * (stride + 1)) throw new Error("cut off");
  const grey = new Uint16Array(width * height);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const start = y * (stride + 1);
    const row = raw.subarray(start + 1, start + 1 + stride);
    unfilter(row, above, raw[start]);
    for (let x = 0; x < width; x++) grey[y * width + x] = (row[2 * x] << 8) | row[2 * x + 1];
    above = row;
  }
  return { width, height, grey };
}

function unfilter(row, above, filter) {
  for (let i = 0; i < row.length; i++) {
    const left = i >= 2 ? row[i - 2] : 0;
    if (filter === 1) row[i] += left;
    else if (filter === 2) row[i] += above[i];
    else if (filter === 3) row[i] += (left + above[i]) >> 1;
    else if (filter === 4) {
      const corner = i >= 2 ? above[i - 2] : 0;
      const guess = left + above[i] - corner;
      const a = Math.abs(guess - left), b = Math.abs(guess - above[i]), c = Math.abs(guess - corner);
      row[i] += a <= b && a <= c ? left : b <= c ? above[i] : corner;
    }
  }
}

// Windows by the share of pixels that lie below: they suit an image whatever its exposure.
function presets(grey) {
  const counts = new Uint32Array(65536);
  for (const value of grey) counts[value]++;
  const below = (share) => {
    let seen = 0;
    for (let value = 0; value < 65536; value++) if ((seen += counts[value]) >= share * grey.length) return value;
    return 65535;
  };
  const between = (low, high) => ({ low: below(low), high: Math.max(below(low) + 256, below(high)) });
  return [{ low: 0, high: 65535 }, between(0.02, 0.985), between(0.02, 0.6), between(0.45, 0.995)];
}
