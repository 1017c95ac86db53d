package sample

import "math/bits"

// philox is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a
// bijection of the counter under the key whose outputs pass the usual tests of randomness. It has no state.
func philox(key [2]uint32, ctr [4]uint32) [4]uint32 {
	for range 10 {
		hi0, lo0 := bits.Mul32(0xD2511F53, ctr[0])
		hi1, lo1 := bits.Mul32(0xCD9E8D57, ctr[2])
		ctr = [4]uint32{hi1 ^ ctr[1] ^ key[0], lo1, hi0 ^ ctr[3] ^ key[1], lo0}
		key[0] += 0x9E3779B9
		key[1] += 0xBB67AE85
	}
	return ctr
}

// uniform is the random number of one draw: 64 bits that depend on the seed, the choice and the token's position alone.
func uniform(seed uint64, choice, position int) uint64 {
	r := philox([2]uint32{uint32(seed), uint32(seed >> 32)}, [4]uint32{uint32(position), uint32(uint64(position) >> 32), uint32(choice), 0})
	return uint64(r[1])<<32 | uint64(r[0])
}
