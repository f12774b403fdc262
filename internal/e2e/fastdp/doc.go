// Package fastdp tests the kernel path with whole daemons in network namespaces: that
// it is chosen where it may be and works, left at once where it fails, and never there
// where data has to be encrypted. All of it is in the tests.
package fastdp
