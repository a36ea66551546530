// A test framework in one file: TEST("sentence") { CHECK(...); }. Failures are counted, not thrown; main() is defined
// here.
#pragma once

#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace check {

struct Case {
    const char* name;
    void (*body)();
};

inline std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

inline int& failures() {
    static int count = 0;
    return count;
}

inline bool add(const char* name, void (*body)()) {
    cases().push_back({name, body});
    return true;
}

inline void fail(const char* file, int line, const std::string& what) {
    std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
    ++failures();
}

// The message of the `Error` that `call` throws; fails if it throws none.
template <class Error, class Call>
std::string message(const char* file, int line, Call call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    fail(file, line, "no exception was thrown");
    return {};
}

}  // namespace check

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)
#define TEST(name)                                                                                            \
    static void CHECK_JOIN(test_body_, __LINE__)();                                                           \
    static const bool CHECK_JOIN(test_added_, __LINE__) = check::add(name, CHECK_JOIN(test_body_, __LINE__)); \
    static void CHECK_JOIN(test_body_, __LINE__)()
#define CHECK(condition) \
    if (!(condition)) check::fail(__FILE__, __LINE__, "CHECK(" #condition ")")
#define CHECK_THROWS(Error, text, ...)                                                                 \
    do {                                                                                               \
        const std::string what = check::message<Error>(__FILE__, __LINE__, [&] { __VA_ARGS__; });      \
        if (what.find(text) == std::string::npos) check::fail(__FILE__, __LINE__, "message: " + what); \
    } while (false)

int main() {
    for (const check::Case& test : check::cases()) {
        const int before = check::failures();
        try {
            test.body();
        } catch (const std::exception& error) {
            check::fail(test.name, 0, std::string("threw ") + error.what());
        }
        std::printf("%s %s\n", check::failures() == before ? "ok  " : "FAIL", test.name);
    }
    return check::failures() ? 1 : 0;
}
