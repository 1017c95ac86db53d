// Package disk is the disk tier: it keeps KV blocks in files, across restarts, under a quota.
//
// One record is one file that says itself what it is (docs/format.md): full key, parent, token ids, checksums. It is written under a temporary
// name and renamed when it is whole. A journal tells at the start which records there are and what they hold, so that nobody has to open them; it
// may lie or be gone, since a record is read and verified whole before it is used. Nothing is synced: after a power cut the newest records may be
// missing or torn, which their checksums show. Whatever goes wrong, the tier may lose records; it never returns a wrong one, never fails a request, and never
// takes more than its quota.
//
// A Tier has one writer goroutine, which does all that changes files, and a few reader goroutines. The index of what is stored is in memory,
// behind a mutex that nobody holds during I/O.
package disk
