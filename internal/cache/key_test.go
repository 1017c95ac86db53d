package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// TestKeyFormat holds the bytes of the format against messages written out by hand.
func TestKeyFormat(t *testing.T) {
	id := Identity{BlockSize: 32, Group: "g", Layout: "ab", DType: "f16", Numerics: 1,
		Rope:     Rope{Scaling: "none", Dimensions: 64, Base: 1, Factor: 2, OriginalContext: 3, Extra: []float64{0.5}},
		Adapters: []Adapter{{Digest: [32]byte{0xaa}, Scale: 1}}, Scope: []byte{9, 8}}
	zeros := func(n int) string { return strings.Repeat("00", n) }
	root := "01 04000000 01000000" + "02 04000000 726f6f74" + "03 20000000" + zeros(32) +
		"04 08000000 2000000000000000" + "05 01000000 67" + "06 02000000 6162" + "07 03000000 663136" + "08 08000000 0100000000000000" +
		"09 04000000 6e6f6e65" + "0a 20000000 4000000000000000 000000000000f03f 0000000000000040 0300000000000000" +
		"0b 08000000 000000000000e03f" + "0c 24000000 aa" + zeros(31) + "0000803f" + "0d 02000000 0908"
	sum := func(s string) Key {
		raw, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(raw)
	}
	if got := id.Root(); got != sum(root) {
		t.Errorf("root key %v", got)
	}
	block := "01 04000000 01000000" + "02 05000000 626c6f636b" + "14 20000000" + zeros(32) + "15 00000000" + "16 04000000 02000000" +
		"17 08000000 01000000 ffffffff"
	if got := Chain(Key{}, nil, []int32{1, -1}); got != sum(block) {
		t.Errorf("block key %v", got)
	}
}

// TestIdentityFields changes every field of an Identity, found by reflection, so that a new field that Root forgets fails here.
func TestIdentityFields(t *testing.T) {
	fill := func() Identity {
		return Identity{Adapters: []Adapter{{}, {Scale: 2}}, Rope: Rope{Extra: []float64{1, 2}}, Scope: []byte{1, 2}}
	}
	seen := map[Key]string{fill().Root(): "unchanged"}
	var visit func(id *Identity, v reflect.Value, name string)
	add := func(id Identity, name string) {
		k := id.Root()
		if other, ok := seen[k]; ok {
			t.Errorf("%s gives the key of %s", name, other)
		}
		seen[k] = name
	}
	visit = func(id *Identity, v reflect.Value, name string) {
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				visit(id, v.Field(i), name+"."+v.Type().Field(i).Name)
			}
			return
		case reflect.Slice:
			for i := range v.Len() {
				visit(id, v.Index(i), name+"[]")
			}
			v.Set(v.Slice(0, 1))
			add(*id, name+" cut")
		case reflect.Array:
			for i := range v.Len() {
				visit(id, v.Index(i), name+"[]")
			}
			return
		case reflect.Int:
			v.SetInt(v.Int() + 7)
			add(*id, name)
		case reflect.Uint8:
			v.SetUint(v.Uint() + 7)
			add(*id, name)
		case reflect.Float32, reflect.Float64:
			v.SetFloat(v.Float() + 7)
			add(*id, name)
		case reflect.String:
			v.SetString("x")
			add(*id, name)
		default:
			t.Fatalf("%s: a %v is not covered", name, v.Kind())
		}
		v.Set(old)
	}
	id := fill()
	visit(&id, reflect.ValueOf(&id).Elem(), "Identity")
	if len(seen) < 60 {
		t.Errorf("only %d keys", len(seen))
	}
}

func TestChain(t *testing.T) {
	seen := map[Key]bool{}
	for _, k := range []Key{
		Chain(Key{}, nil, nil), Chain(Key{1}, nil, nil), Chain(Key{}, []byte{1}, nil), Chain(Key{}, nil, []int32{1}), Chain(Key{}, nil, []int32{1, 0}),
		Chain(Key{}, nil, []int32{256}), Chain(Chain(Key{}, nil, []int32{1}), nil, []int32{0}), Identity{}.Root(),
	} {
		if seen[k] {
			t.Errorf("%v twice", k)
		}
		seen[k] = true
	}
}

func TestScope(t *testing.T) {
	// RFC 4231, test case 2.
	want, _ := hex.DecodeString("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
	if got := Scope([]byte("Jefe"), "what do ya want for nothing?"); !bytes.Equal(got, want) {
		t.Errorf("%x", got)
	}
	if bytes.Equal(Scope([]byte("a"), "t"), Scope([]byte("b"), "t")) {
		t.Error("the secret does not matter")
	}
}
