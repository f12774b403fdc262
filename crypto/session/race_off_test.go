//go:build !race

package session

// raceEnabled shortens the long tests.
const raceEnabled = false
