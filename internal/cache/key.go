package cache

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
)

// keyVersion names the byte format of this file. Change the format, and the version rises.
const keyVersion = 1

// A Key names the content of a full block together with everything before it, or, as a root key, all that KV depends on beside the tokens.
//
// It is the SHA-256 of a message of fields. A field is
//
//	tag     1 byte
//	length  4 bytes, little endian
//	value   length bytes
//
// and integers in values are little endian two's complement, floats IEEE 754 bits. A root key's message is
//
//	1  version        u32, keyVersion
//	2  kind           "root"
//	3  weights        32 bytes
//	4  block size     i64
//	5  layer group    text
//	6  KV layout      text
//	7  KV dtype       text
//	8  numerics       i64
//	9  rope scaling   text
//	10 rope numbers   i64 dimensions, f64 base, f64 factor, i64 original context
//	11 rope extra     f64 each
//	12 adapter        32 bytes digest, f32 scale; one field for each adapter, in order
//	13 scope          bytes
//
// and a block key's
//
//	1  version        u32, keyVersion
//	2  kind           "block"
//	20 parent         32 bytes
//	21 scope          bytes; empty if it is the parent's
//	22 count          u32
//	23 ids            i32 each
type Key [32]byte

// String returns the key in hex.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// An Identity is all that the KV of a token depends on beside the tokens up to it, and who may see it.
type Identity struct {
	Weights   [32]byte // digest of the weights
	BlockSize int      // tokens
	Group     string   // the layer group
	Layout    string   // how a block's bytes are arranged
	DType     string   // of K and V
	Numerics  int      // kernel.Revision
	Rope      Rope
	Adapters  []Adapter // in the order in which they are applied
	Scope     []byte    // see Scope
}

// Rope is the rotary embedding as configured; it never depends on a prompt's length.
type Rope struct {
	Scaling         string // "none", "linear", "yarn", …
	Dimensions      int    // rotated dimensions of a head
	Base            float64
	Factor          float64
	OriginalContext int
	Extra           []float64 // what else the scaling needs, in an order that belongs to it
}

// An Adapter is a low-rank adapter applied to the weights.
type Adapter struct {
	Digest [32]byte
	Scale  float32
}

// Root returns the root key.
func (id Identity) Root() Key {
	m := header("root")
	m.field(3, id.Weights[:])
	m.field(4, le64(uint64(id.BlockSize)))
	m.field(5, []byte(id.Group))
	m.field(6, []byte(id.Layout))
	m.field(7, []byte(id.DType))
	m.field(8, le64(uint64(id.Numerics)))
	m.field(9, []byte(id.Rope.Scaling))
	m.field(10, le64(uint64(id.Rope.Dimensions), math.Float64bits(id.Rope.Base), math.Float64bits(id.Rope.Factor), uint64(id.Rope.OriginalContext)))
	extra := make([]uint64, len(id.Rope.Extra))
	for i, x := range id.Rope.Extra {
		extra[i] = math.Float64bits(x)
	}
	m.field(11, le64(extra...))
	for _, a := range id.Adapters {
		m.field(12, binary.LittleEndian.AppendUint32(a.Digest[:], math.Float32bits(a.Scale)))
	}
	m.field(13, id.Scope)
	return sha256.Sum256(m)
}

// Scope returns what keeps a tenant's keys apart: the HMAC-SHA-256 of its name under a secret of the deployment. Without the secret, nobody can
// tell which keys a tenant has.
func Scope(secret []byte, tenant string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(tenant))
	return h.Sum(nil)
}

// Chain returns the key of the block with these ids behind the block (or root) parent. A nil scope means the parent's.
func Chain(parent Key, scope []byte, tokens []int32) Key {
	m := header("block")
	m.field(20, parent[:])
	m.field(21, scope)
	m.field(22, binary.LittleEndian.AppendUint32(nil, uint32(len(tokens))))
	m = append(m, 23)
	m = binary.LittleEndian.AppendUint32(m, uint32(4*len(tokens)))
	for _, t := range tokens {
		m = binary.LittleEndian.AppendUint32(m, uint32(t))
	}
	return sha256.Sum256(m)
}

// A message is a row of fields.
type message []byte

func header(kind string) message {
	m := make(message, 0, 512)
	m.field(1, binary.LittleEndian.AppendUint32(nil, keyVersion))
	m.field(2, []byte(kind))
	return m
}

func (m *message) field(tag byte, value []byte) {
	*m = append(*m, tag)
	*m = binary.LittleEndian.AppendUint32(*m, uint32(len(value)))
	*m = append(*m, value...)
}

func le64(values ...uint64) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
