// Package storage keeps registry content on a local disk: every object is downloaded once (a fill), verified, and immutable
// from then on. Store.Over puts the store in front of another registry.Reader.
//
// Guarantees. One upstream read serves any number of concurrent readers of a digest, late ones and ranges included; a
// reader that leaves changes nothing. No reader gets a complete body whose bytes do not match the digest. A fill that was
// interrupted, by kill -9 as well, continues where the disk is known to be good. Bytes are shared between places
// (namespace, repository, kind); the right to read them is not: see links.
//
// A fill reads several ranges of a blob at once (see schedule for which, pace for how many, slots for the bounds per host and
// process), the bytes that readers wait for first. What breaks goes on at the byte reached after growing, jittered waits, or
// when upstream says; trouble before the first byte is waited out while a reader is there. A read of at most 64 KiB brings
// only the segments it lies in. The bytes are hashed once, and the last 64 KiB withheld until they match.
//
// On the disk: blobs/ALGORITHM/XX/HEX are complete objects, fills/ALGORITHM-HEX.{data,map} partial ones (see fillFile),
// meta.db is links, tags, sizes and access times (see meta). What is in blobs/ was verified before it got its name, and is
// not read again at start-up, which takes about as long as listing the files. An object takes about 200 bytes of memory.
//
// Where to look. Accounts and disk: space is the book of bytes, disk what leaves and what a full disk means, layout where files
// stand, recover what a start finds. Metadata: meta keeps rows behind a cache, rows is their form, metafile the file. Reading:
// view and manifest, past for what goes past the store, doubt. A fill: fill is its life, start, stream and transfer bring the
// bytes, follow gives them out, fillfile keeps them. fsck: check.
//
// Limitations: bytes that rot on the disk later are noticed only in manifests, and by Check. From an upstream that ignores
// ranges a blob comes in one stream, so a range near its end waits for what stands before it. When the disk fills up in spite
// of reservations, readers of a fill are cut and get the content uncached when they ask again. Not counted are the bytes of a
// damaged object that is dropped while others read it, until they leave, and meta.db: some 200 bytes for an object and a link.
package storage
