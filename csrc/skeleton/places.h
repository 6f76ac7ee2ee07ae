// Places in the arguments of calls at which numbers are traced.
//
// A place is known by the steps that lead there from the root of a call, each as a path
// writes it: `args[1]`, `.config`, `['lr']`.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "skeleton/skeleton.h"

namespace autojit {

using Steps = std::vector<std::string>;

class Places {
 public:
  enum class Status : std::uint8_t {
    Unknown,
    Traced,   // what stands there, by itself
    Below,    // all that is in what stands there
    ByValue,  // what stands there stays static: the function needs its value
    Static,   // all in it stays static: the user says so
  };
  struct Place {
    Status status = Status::Unknown;
    std::map<std::string, std::unique_ptr<Place>> next;
  };

  // `learns`: places come to be known by the calls.
  explicit Places(bool learns) : learns_(learns) {}
  bool learns() const { return learns_; }
  const Place& root() const { return root_; }
  // The place to which steps lead.
  Place& at(const Steps& steps);
  // How many bits an int may have to be traced. One that nobody asked for must not
  // become an error where it does not fit.
  std::uint32_t bits() const { return learns_ ? 32 : 0; }
  // The paths of all places that have a status.
  std::vector<std::string> paths(Status status) const;

 private:
  Place root_;
  bool learns_;
};

// The places that an option says: None for none, or a pair of whether calls tell more
// of them and a tuple of those that are known: each a tuple of a path, all the steps to
// which it leads, each a tuple of str, and whether it is traced or static. nullptr for
// none, or with an exception set on failure.
std::unique_ptr<Places> places_of(PyObject* traced);

// The steps that a tuple of str says.
Steps steps_of(PyObject* steps);

// Makes leaves of the numbers at some places of a call, and copies the numpy arrays
// that stay. False with an exception set on failure. May run Python (the repr of a
// key).
bool trace_at(const Places& places, Program& program, OwnedVector& leaves);

// Learns from two calls that differ in numbers, and in nothing else but the order of
// keys: their places are
// traced from now on. 1 if there are such places, 0, or -1 with an exception set. May
// run Python.
int learn(Places& places, Skeleton* before, Skeleton* now);

// The steps to some leaves of a call, those that are at a place which was learned. May
// run Python.
std::vector<Steps> steps_to(const Program& program, const std::vector<bool>& leaves);

// Whether a node is a number or numpy array at a place where it could be traced. May
// run Python.
bool could_be_traced(const Program& program, std::size_t node);

// Whether steps lead anywhere in a call. May run Python.
bool lead_anywhere(const Program& program, const Steps& steps);

}  // namespace autojit
