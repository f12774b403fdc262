// Package netem tests whole daemons over networks that lose, delay, reorder and repeat
// packets, as the kernel's netem queue makes them. All of it is in the tests, which run
// where the kernel has netem: in the virtual machine (scripts/vm.sh).
package netem
