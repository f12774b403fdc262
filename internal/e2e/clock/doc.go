// Package clock tests whole daemons while the time of day jumps under them. All of it is
// in the tests, which run where nobody else goes by that clock: in the virtual machine
// (scripts/vm.sh).
package clock
