//go:build !purego

package kernel

const haveAsm = true
