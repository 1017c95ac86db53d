//go:build !linux

package mmap

func (m *Mapping) huge() {}

func (m *Mapping) populate(off, end int) {}
