package mmap

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

type state struct{ file bool }

func (m *Mapping) mapFile(f *os.File, n int) error {
	h, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, windows.PAGE_READONLY, 0, 0, nil)
	if err != nil {
		return os.NewSyscallError("CreateFileMapping", err)
	}
	defer windows.CloseHandle(h) // the view holds the mapping by itself
	addr, err := windows.MapViewOfFile(h, windows.FILE_MAP_READ, 0, 0, uintptr(n))
	if err != nil {
		return os.NewSyscallError("MapViewOfFile", err)
	}
	m.Data = bytesAt(addr, n)
	m.sys.file = true
	return nil
}

func (m *Mapping) mapAnon(n int) error {
	addr, err := windows.VirtualAlloc(0, uintptr(n), windows.MEM_RESERVE|windows.MEM_COMMIT, windows.PAGE_READWRITE)
	if err != nil {
		return os.NewSyscallError("VirtualAlloc", err)
	}
	m.Data = bytesAt(addr, n)
	return nil
}

// bytesAt makes a slice of memory that the operating system, not the Go heap, owns. The detour through a pointer to addr
// is what vet accepts for such addresses.
func bytesAt(addr uintptr, n int) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), n)
}

// drop does nothing: Windows trims mapped views by itself, and decommitted memory would fault.
func (m *Mapping) drop(off, end int) {}

func (m *Mapping) unmap(data []byte) error {
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	if m.sys.file {
		return os.NewSyscallError("UnmapViewOfFile", windows.UnmapViewOfFile(addr))
	}
	return os.NewSyscallError("VirtualFree", windows.VirtualFree(addr, 0, windows.MEM_RELEASE))
}
