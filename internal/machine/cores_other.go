//go:build !linux && !darwin

package machine

import "github.com/shirou/gopsutil/v4/cpu"

func physicalCores() int {
	n, err := cpu.Counts(false)
	if err != nil {
		return 0
	}
	return n
}

func cpuModel() string {
	infos, err := cpu.Info()
	if err != nil || len(infos) == 0 {
		return ""
	}
	return infos[0].ModelName
}
