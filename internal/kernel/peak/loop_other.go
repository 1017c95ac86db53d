//go:build !amd64 || purego

package peak

import "kvasir/internal/kernel"

func loopOf(_ kernel.Path, o Op) loop { return portable[o] }

func readerOf(kernel.Path) func([]byte) { return readGo }
