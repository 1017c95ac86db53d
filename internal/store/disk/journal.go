package disk

import (
	"encoding/binary"
	"fmt"
	"io"

	"kvasir/internal/cache"
	"kvasir/internal/store"
)

// The journal says which records there are, so that the start need not open them: docs/format.md. It is only believed of files that are there,
// and a record is verified in whole when it is read.
const (
	journalName    = "journal"
	journalNew     = "journal.new"
	journalMagic   = "KVASIRJL"
	journalVersion = 1
	journalHead    = 16
	entryFixed     = 1 + 3*32 + 8 + 8 + 4 // kind, three keys, size, use, count

	kindAdd    = 'A'
	kindRemove = 'R'
)

// appendJournalHead begins a journal.
func appendJournalHead(dst []byte) []byte {
	dst = append(dst, journalMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, journalVersion)
	return binary.LittleEndian.AppendUint32(dst, 0)
}

// appendEntry appends an entry that r is there, or not any more.
func appendEntry(dst []byte, kind byte, r *record) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, kind)
	dst = append(dst, r.key[:]...)
	if kind == kindAdd {
		dst = append(dst, r.parent[:]...)
		dst = append(dst, r.root[:]...)
		dst = le.AppendUint64(dst, uint64(r.size))
		dst = le.AppendUint64(dst, uint64(r.used))
		dst = le.AppendUint32(dst, uint32(len(r.tokens)))
		for _, t := range r.tokens {
			dst = le.AppendUint32(dst, uint32(t))
		}
	}
	return le.AppendUint64(dst, checksum(dst[start:]))
}

// readJournal reads a whole journal. It returns what it says is there, and whether all of it could be read: an entry that is torn hides
// those behind it. An entry may say anything; only the lengths of its ids and its checksum have been checked.
func readJournal(b []byte) (records []record, whole bool, err error) {
	le := binary.LittleEndian
	if len(b) < journalHead || string(b[:8]) != journalMagic {
		return nil, false, fmt.Errorf("journal: %w", ErrForeign)
	}
	if v := le.Uint32(b[8:]); v != journalVersion {
		return nil, false, fmt.Errorf("journal of version %d: %w", v, ErrForeign)
	}
	b = b[journalHead:]
	entries, removed, ids := 0, 0, 0
	end := 0
	for end < len(b) { // count first: few allocations, whatever the journal says
		n, kind := entryLength(b[end:])
		if n == 0 || le.Uint64(b[end+n-sumBytes:]) != checksum(b[end:end+n-sumBytes]) {
			break
		}
		if kind == kindAdd {
			entries++
			ids += (n - entryFixed - sumBytes) / 4
		} else {
			removed++
		}
		end += n
	}
	whole = end == len(b)
	b = b[:end]
	records = make([]record, 0, entries)
	tokens := make([]int32, 0, ids)
	var at map[cache.Key]int // where a record is in records; only needed if some are not there any more
	if removed > 0 {
		at = make(map[cache.Key]int, entries)
	}
	for len(b) > 0 {
		n, kind := entryLength(b)
		var key cache.Key
		copy(key[:], b[1:])
		switch kind {
		case kindAdd:
			r := record{key: key, place: -1, size: int64(le.Uint64(b[97:])), used: int64(le.Uint64(b[105:]))}
			copy(r.parent[:], b[33:])
			copy(r.root[:], b[65:])
			start := len(tokens)
			for i := entryFixed; i < n-sumBytes; i += 4 {
				tokens = append(tokens, int32(le.Uint32(b[i:])))
			}
			r.tokens = tokens[start:len(tokens):len(tokens)]
			if at != nil {
				if i, ok := at[key]; ok {
					records[i].gone = true
				}
				at[key] = len(records)
			}
			records = append(records, r)
		case kindRemove:
			if i, ok := at[key]; ok {
				records[i].gone = true
				delete(at, key)
			}
		}
		b = b[n:]
	}
	return records, whole, nil
}

// entryLength is the length of the entry that b begins with, 0 if there is no whole one.
func entryLength(b []byte) (n int, kind byte) {
	if len(b) < 1+32+sumBytes {
		return 0, 0
	}
	n = 1 + 32 + sumBytes
	switch kind = b[0]; kind {
	case kindRemove:
	case kindAdd:
		if len(b) < entryFixed+sumBytes {
			return 0, 0
		}
		count := binary.LittleEndian.Uint32(b[entryFixed-4:])
		if count < 1 || count > maxTokens {
			return 0, 0
		}
		n = entryFixed + 4*int(count) + sumBytes
	default:
		return 0, 0
	}
	if len(b) < n {
		return 0, 0
	}
	return n, kind
}

// A journal is open for appending. Only the writer goroutine uses it.
type journal struct {
	fs    store.FS
	file  store.File // nil after a fault: then it is written anew when that is due
	bytes int64
	buf   []byte
}

// write appends an entry. After a fault nothing more is appended, since what follows a torn entry is not read.
func (j *journal) write(kind byte, r *record) error {
	if j.file == nil {
		return nil
	}
	j.buf = appendEntry(j.buf[:0], kind, r)
	n, err := j.file.Write(j.buf)
	j.bytes += int64(n)
	if err != nil {
		j.close()
	}
	return err
}

func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
}

// replace writes the journal anew, with an entry for each of the records. On an error there is none, and the next start opens the records.
func (j *journal) replace(records []record) (err error) {
	j.close()
	j.bytes = 0
	j.fs.Remove(journalNew)
	f, err := j.fs.Create(journalNew)
	if err != nil {
		j.fs.Remove(journalName)
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			j.fs.Remove(journalNew)
			j.fs.Remove(journalName)
		}
	}()
	buf := appendJournalHead(make([]byte, 0, 1<<18))
	flush := func() error {
		n, err := f.Write(buf)
		j.bytes += int64(n)
		buf = buf[:0]
		return err
	}
	for i := range records {
		buf = appendEntry(buf, kindAdd, &records[i])
		if len(buf) > cap(buf)*3/4 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := j.fs.Rename(journalNew, journalName); err != nil {
		return err
	}
	j.file, err = j.fs.Append(journalName)
	return err
}

// readAll reads a file of at most limit bytes.
func readAll(fs store.FS, name string, limit int64) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%s has %d bytes: %w", name, n, ErrCorrupt)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}
